// What cluster clients do, over a cluster of one node: the same steps as in cluster.py.
// usage: node cluster.js ioredis|node-redis PORT PROTOCOL redis|cluster|memory
import assert from "node:assert/strict";
import Redis from "ioredis";
import { createCluster } from "redis";

const [client, port, protocol, backend] = process.argv.slice(2);
const scripts = backend !== "memory";
// A real cluster answers CROSSSLOT; the sidecar takes keys of any slots together.
const anySlots = backend !== "cluster";
const base = `c:cluster-${client}-${protocol}`;
const [one, two, same] = [`${base}-1`, `${base}-2`, `{${base}-1}-same`];
const lua = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";

async function ioredis() {
  const cluster = new Redis.Cluster([{ host: "127.0.0.1", port: Number(port) }], {
    clusterRetryStrategy: () => null,
    redisOptions: { maxRetriesPerRequest: 0, protocol: Number(protocol) },
  });
  await new Promise((resolve, reject) => cluster.once("ready", resolve).once("error", reject));
  assert.deepEqual(cluster.nodes("master").map((node) => node.options.port), [Number(port)]);
  assert.equal(await cluster.cluster("KEYSLOT", "foo"), 12182);
  assert.equal(await cluster.set(one, "v", "EX", 100), "OK");
  assert.equal(await cluster.set(two, "w"), "OK");
  for (let read = 0; read < 2; read++) assert.equal(await cluster.get(one), "v");
  if (anySlots) {
    assert.equal(await cluster.mset(one, "x", two, "y"), "OK");
    for (let read = 0; read < 2; read++) assert.deepEqual(await cluster.mget(one, two, `${base}-none`), ["x", "y", null]);
    assert.equal(await cluster.del(one, two), 2);
  } else await assert.rejects(cluster.mget(one, two), /CROSSSLOT/);
  const found = new Set();
  await cluster.set(one, "v");
  for (const node of cluster.nodes("master"))
    for await (const keys of node.scanStream({ match: `${base}-*`, count: 10 })) keys.forEach((key) => found.add(key));
  assert(found.has(one), [...found].join());

  const options = { shardedSubscribers: true, redisOptions: { protocol: Number(protocol) } };
  const subscriber = new Redis.Cluster([{ host: "127.0.0.1", port: Number(port) }], options);
  const heard = [];
  const six = new Promise((resolve) => subscriber.on("smessage", (channel, text) => heard.push([channel, text]) === 6 && resolve()));
  // Of several slots, so of several shards, if there are any.
  const channels = Array.from({ length: 6 }, (_, number) => `${base}-news-${number}`);
  for (const [index, channel] of channels.entries()) assert.equal(await subscriber.ssubscribe(channel), index + 1);
  for (const channel of channels) assert.equal(await cluster.spublish(channel, "hello"), 1);
  await six;
  assert.deepEqual(heard.sort(), channels.map((channel) => [channel, "hello"]));
  assert.equal(await subscriber.sunsubscribe(channels[0]), 5);
  subscriber.disconnect();

  if (scripts) {
    assert.deepEqual(await cluster.multi().set(one, "m").get(one).set(same, "s").exec(), [[null, "OK"], [null, "m"], [null, "OK"]]);
    assert.equal(await cluster.get(one), "m");
    assert.equal(await cluster.eval(lua, 1, one, "e"), "e");
    assert.equal(await cluster.get(one), "e");
  }
  await cluster.quit();
}

async function nodeRedis() {
  const open = async () => {
    const cluster = createCluster({ rootNodes: [{ url: `redis://127.0.0.1:${port}` }], RESP: Number(protocol), defaults: { socket: { reconnectStrategy: false } } });
    cluster.on("error", (error) => { throw error; });
    await cluster.connect();
    return cluster;
  };
  const cluster = await open();
  assert.deepEqual(cluster.masters.map((node) => node.port), [Number(port)]);
  assert.equal(await cluster.set(one, "v", { EX: 100 }), "OK");
  assert.equal(await cluster.set(two, "w"), "OK");
  for (let read = 0; read < 2; read++) assert.equal(await cluster.get(one), "v");
  // node-redis itself takes keys of different slots apart.
  assert.equal(await cluster.mSet({ [one]: "x", [two]: "y" }), "OK");
  for (let read = 0; read < 2; read++) assert.deepEqual(await cluster.mGet([one, two, `${base}-none`]), ["x", "y", null]);
  assert.equal(await cluster.del([one, two]), 2);
  const found = new Set();
  await cluster.set(one, "v");
  for (const master of cluster.masters) {
    const node = await cluster.nodeClient(master);
    for await (const keys of node.scanIterator({ MATCH: `${base}-*`, COUNT: 10 })) [keys].flat().forEach((key) => found.add(key));
  }
  assert(found.has(one), [...found].join());

  const subscriber = await open();
  let told;
  const heard = new Promise((resolve) => { told = resolve; });
  await subscriber.sSubscribe(`${base}-news`, (text, channel) => told([channel, text]));
  assert.equal(await cluster.sPublish(`${base}-news`, "hello"), 1);
  assert.deepEqual(await heard, [`${base}-news`, "hello"]);
  subscriber.destroy();

  if (scripts) {
    assert.deepEqual(await cluster.multi().set(one, "m").get(one).set(same, "s").exec(), ["OK", "m", "OK"]);
    assert.equal(await cluster.get(one), "m");
    assert.equal(await cluster.eval(lua, { keys: [one], arguments: ["e"] }), "e");
    assert.equal(await cluster.get(one), "e");
  }
  await cluster.close();
}

setTimeout(() => { console.error("a step got no answer"); process.exit(1); }, 30_000).unref();
await (client === "ioredis" ? ioredis() : nodeRedis());
console.log("all steps done");
