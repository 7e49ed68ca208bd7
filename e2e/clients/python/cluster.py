"""What cluster clients do, over a cluster of one node: the same steps as in cluster.js.

usage: python cluster.py PORT PROTOCOL redis|cluster|memory
"""

import sys
import time

import redis

port, protocol, backend = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
base = f"c:cluster-py-{protocol}"
one, two, together = f"{base}-1", f"{base}-2", "{" + base + "-1}-same"


def same(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def connect():
    return redis.RedisCluster("127.0.0.1", port, protocol=protocol, decode_responses=True, socket_timeout=15)


client = connect()
same([node.port for node in client.get_primaries()], [port])
same(client.cluster_keyslot("foo"), 12182)
same(client.cluster_info()["cluster_state"], "ok")
same([node["flags"] for node in client.cluster_nodes().values()], ["myself,master"])
same(client.set(one, "v", ex=100), True)
for _ in range(2):
    same(client.get(one), "v")
same(client.mset_nonatomic({one: "x", two: "y"}), [True, True])
for _ in range(2):
    same(client.mget_nonatomic([one, two, f"{base}-none"]), ["x", "y", None])
if backend != "cluster":
    # redis-py itself refuses keys of different slots in one command; the sidecar would take them.
    same(client.execute_command("MGET", one, two, target_nodes=client.get_primaries()[0]), ["x", "y"])
with client.pipeline() as pipe:
    same(pipe.set(one, 1).incr(one).set(two, "w").get(two).execute(), [True, 2, True, "w"])
found = set(client.scan_iter(match=f"{base}-*", count=10))
assert {one, two} <= found, found

listener = client.pubsub()
# Of several slots, so of several shards, if there are any.
channels = [f"{base}-news-{number}" for number in range(6)]
listener.ssubscribe(*channels)


def heard():
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        message = listener.get_sharded_message(timeout=1)
        if message:
            return message
    raise AssertionError("no message")


def hears(*expected):
    message = heard()
    same((message["type"], message["channel"], message["data"]), expected)


confirmed = [heard() for _ in channels]
same({(m["type"], m["channel"]) for m in confirmed}, {("ssubscribe", channel) for channel in channels})
same(sorted(m["data"] for m in confirmed), [1, 2, 3, 4, 5, 6])
for channel in channels:
    same(client.spublish(channel, "hello"), 1)
    hears("smessage", channel, "hello")
listener.sunsubscribe(channels[0])
hears("sunsubscribe", channels[0], 5)
same(client.spublish(channels[1], "still"), 1)
hears("smessage", channels[1], "still")
listener.close()

if backend != "memory":
    with client.pipeline(transaction=True) as pipe:
        same(pipe.set(one, "m").get(one).set(together, "s").execute(), ["OK", "m", "OK"])
    same(client.get(one), "m")
    lua = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
    same(client.eval(lua, 1, one, "e"), "e")
    same(client.get(one), "e")
same(client.delete(one, two), 2)
client.close()
print("all steps done")
