/*
 * The floor: the least that a single-threaded TCP server can spend on a request.
 *
 * It counts bytes: every REQUEST_BYTES that arrive are answered with one fixed bulk reply of
 * 100 bytes. No parsing, no lookup, one read and one write per readable connection. It does not
 * handle short writes, because the replies of one read always fit the socket buffer.
 *
 * usage: floor PORT REQUEST_BYTES
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 4096, READ_BYTES = 65536, VALUE_BYTES = 100, EVENTS = 64 };

static char request[READ_BYTES];
static int partial[MAX_FD]; /* bytes of a request that has not arrived whole, by connection */

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int port = atoi(argv[1]), request_bytes = atoi(argv[2]), on = 1;
    if (request_bytes <= 0) return 2;

    char reply[VALUE_BYTES + 16];
    int reply_bytes = sprintf(reply, "$%d\r\n", VALUE_BYTES);
    memset(reply + reply_bytes, 'x', VALUE_BYTES);
    reply_bytes += VALUE_BYTES;
    memcpy(reply + reply_bytes, "\r\n", 2);
    reply_bytes += 2;
    int most = (READ_BYTES + request_bytes) / request_bytes;
    char *replies = malloc((size_t)most * reply_bytes);
    for (int i = 0; i < most; i++) memcpy(replies + (size_t)i * reply_bytes, reply, reply_bytes);

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 512)) {
        perror("floor");
        return 1;
    }
    int epoll = epoll_create1(0);
    struct epoll_event interest = {.events = EPOLLIN, .data.fd = listener}, ready[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &interest);

    for (;;) {
        int count = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, 0, 0);
                if (fd < 0 || fd >= MAX_FD) {
                    if (fd >= 0) close(fd);
                    continue;
                }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                interest.data.fd = fd;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest);
                partial[fd] = 0;
                continue;
            }
            int got = read(fd, request, sizeof request);
            if (got <= 0) {
                close(fd);
                continue;
            }
            int total = partial[fd] + got, whole = total / request_bytes;
            partial[fd] = total % request_bytes;
            if (whole && write(fd, replies, (size_t)whole * reply_bytes) < 0) close(fd);
        }
    }
}
