"""What every client does: the same steps as in scenario.js and tests/clients.rs.

usage: python scenario.py PORT PROTOCOL redis|memory
"""

import sys
import threading

import redis

port, protocol, backend = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
full = backend == "redis"
base = f"c:py-{protocol}"


def same(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def connect():
    return redis.Redis(port=port, protocol=protocol, decode_responses=True, socket_timeout=15)


client = connect()
same(client.ping(), True)
same(client.set(f"{base}-s", "v", ex=100), True)
same(client.get(f"{base}-s"), "v")
same(client.get(f"{base}-s"), "v")
assert 90 < client.ttl(f"{base}-s") <= 100
same(client.hset(f"{base}-h", mapping={"a": "1", "b": "2"}), 2)
same(client.hgetall(f"{base}-h"), {"a": "1", "b": "2"})
same(client.mget(f"{base}-s", f"{base}-none"), ["v", None])
with client.pipeline(transaction=False) as pipe:
    same(pipe.set(f"{base}-p", 1).incr(f"{base}-p").get(f"{base}-p").execute(), [True, 2, "2"])
same(client.rpush(f"{base}-l", "a", "b"), 2)
same(client.lrange(f"{base}-l", 0, -1), ["a", "b"])
same(client.sadd(f"{base}-t", "a", "b"), 2)
same(set(client.smembers(f"{base}-t")), {"a", "b"})
found = set(client.scan_iter(match=f"{base}-*", count=10))
assert {f"{base}-s", f"{base}-h"} <= found, found

listener = client.pubsub()
listener.subscribe(f"{base}-news")
same(listener.get_message(timeout=10)["type"], "subscribe")
same(client.publish(f"{base}-news", "hello"), 1)
same(listener.get_message(timeout=10)["data"], "hello")
if protocol == 2:  # over RESP3 redis-py itself misreads the reply of a plain server
    listener.ping()
    same(listener.get_message(timeout=10)["type"], "pong")
listener.close()

if full:
    with client.pipeline(transaction=True) as pipe:
        pipe.watch(f"{base}-s")
        pipe.multi()
        same(pipe.set(f"{base}-s", "w").get(f"{base}-s").execute(), [True, "w"])
    same(client.get(f"{base}-s"), "w")
    popped = []
    waiter = threading.Thread(target=lambda: popped.append(connect().blpop([f"{base}-q"], timeout=10)))
    waiter.start()
    client.rpush(f"{base}-q", "job")
    waiter.join()
    same([list(item) for item in popped], [[f"{base}-q", "job"]])
    script = client.register_script("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])")
    same(script(keys=[f"{base}-e"], args=["x"]), "x")
    same(client.zadd(f"{base}-z", {"m": 1.5}), 1)
    same([list(item) for item in client.zrange(f"{base}-z", 0, -1, withscores=True)], [["m", 1.5]])

try:
    client.hset(f"{base}-s", "f", "v")
    raise AssertionError("no error for the wrong type")
except redis.ResponseError as error:
    assert "WRONGTYPE" in str(error), error
same(client.delete(f"{base}-s"), 1)
same(client.get(f"{base}-s"), None)
client.close()
print("all steps done")
