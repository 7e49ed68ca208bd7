// What every client does: the same steps as in scenario.py and tests/clients.rs.
// usage: node scenario.js ioredis|node-redis PORT PROTOCOL redis|memory
import assert from "node:assert/strict";
import Redis from "ioredis";
import { createClient } from "redis";

const [client, port, protocol, backend] = process.argv.slice(2);
const full = backend === "redis";
const base = `c:${client}-${protocol}`;

async function ioredis() {
  const options = { port: Number(port), host: "127.0.0.1", protocol: Number(protocol), maxRetriesPerRequest: 0, retryStrategy: () => null };
  const redis = new Redis(options);
  // The ready event comes after ioredis' own INFO check.
  await new Promise((resolve, reject) => redis.once("ready", resolve).once("error", reject));
  const key = `${base}-s`;
  assert.equal(await redis.set(key, "v", "EX", 100), "OK");
  assert.equal(await redis.get(key), "v");
  assert.equal(await redis.get(key), "v");
  const ttl = await redis.ttl(key);
  assert(ttl > 90 && ttl <= 100, `ttl ${ttl}`);
  assert.deepEqual(await redis.getBuffer(key), Buffer.from("v"));
  assert.equal(await redis.hset(`${base}-h`, { a: "1", b: "2" }), 2);
  assert.deepEqual(await redis.hgetall(`${base}-h`), { a: "1", b: "2" });
  assert.deepEqual(await redis.mget(key, `${base}-none`), ["v", null]);
  const replies = await redis.pipeline().set(`${base}-p`, 1).incr(`${base}-p`).get(`${base}-p`).exec();
  assert.deepEqual(replies, [[null, "OK"], [null, 2], [null, "2"]]);
  assert.equal(await redis.rpush(`${base}-l`, "a", "b"), 2);
  assert.deepEqual(await redis.lrange(`${base}-l`, 0, -1), ["a", "b"]);
  const found = new Set();
  for await (const keys of redis.scanStream({ match: `${base}-*`, count: 10 })) keys.forEach((k) => found.add(k));
  assert(found.has(key) && found.has(`${base}-h`), [...found].join());

  const subscriber = redis.duplicate();
  const heard = new Promise((resolve) => subscriber.on("message", (channel, text) => resolve([channel, text])));
  assert.equal(await subscriber.subscribe(`${base}-news`), 1);
  assert.equal(await redis.publish(`${base}-news`, "hello"), 1);
  assert.deepEqual(await heard, [`${base}-news`, "hello"]);
  subscriber.disconnect();

  if (full) {
    const replies = await redis.multi().set(key, "w").get(key).exec();
    assert.deepEqual(replies, [[null, "OK"], [null, "w"]]);
    assert.equal(await redis.get(key), "w");
    const popper = redis.duplicate();
    const popped = popper.blpop(`${base}-q`, 10);
    await redis.rpush(`${base}-q`, "job");
    assert.deepEqual(await popped, [`${base}-q`, "job"]);
    popper.disconnect();
    redis.defineCommand("addTwice", { numberOfKeys: 1, lua: "redis.call('INCR', KEYS[1]) return redis.call('INCRBY', KEYS[1], ARGV[1])" });
    await redis.del(`${base}-n`);
    assert.equal(await redis.addTwice(`${base}-n`, 4), 5);
    assert.equal(await redis.addTwice(`${base}-n`, 4), 10);
  }
  await assert.rejects(redis.call("HSET", key, "f", "v"), /WRONGTYPE/);
  assert.equal(await redis.del(key), 1);
  assert.equal(await redis.get(key), null);
  await redis.quit();
}

async function nodeRedis() {
  const redis = createClient({ url: `redis://127.0.0.1:${port}`, RESP: Number(protocol), socket: { reconnectStrategy: false } });
  redis.on("error", (error) => { throw error; });
  await redis.connect();
  const key = `${base}-s`;
  assert.equal(await redis.set(key, "v", { EX: 100 }), "OK");
  assert.equal(await redis.get(key), "v");
  assert.equal(await redis.get(key), "v");
  const ttl = await redis.ttl(key);
  assert(ttl > 90 && ttl <= 100, `ttl ${ttl}`);
  assert.equal(await redis.hSet(`${base}-h`, { a: "1", b: "2" }), 2);
  assert.deepEqual({ ...(await redis.hGetAll(`${base}-h`)) }, { a: "1", b: "2" });
  assert.deepEqual(await redis.mGet([key, `${base}-none`]), ["v", null]);
  const replies = await Promise.all([redis.set(`${base}-p`, "1"), redis.incr(`${base}-p`), redis.get(`${base}-p`)]);
  assert.deepEqual(replies, ["OK", 2, "2"]);
  assert.equal(await redis.rPush(`${base}-l`, ["a", "b"]), 2);
  assert.deepEqual(await redis.lRange(`${base}-l`, 0, -1), ["a", "b"]);
  const found = new Set();
  for await (const keys of redis.scanIterator({ MATCH: `${base}-*`, COUNT: 10 })) [keys].flat().forEach((k) => found.add(k));
  assert(found.has(key) && found.has(`${base}-h`), [...found].join());

  const subscriber = redis.duplicate();
  subscriber.on("error", (error) => { throw error; });
  await subscriber.connect();
  let told;
  const heard = new Promise((resolve) => { told = resolve; });
  await subscriber.subscribe(`${base}-news`, (text, channel) => told([channel, text]));
  assert.equal(await redis.publish(`${base}-news`, "hello"), 1);
  assert.deepEqual(await heard, [`${base}-news`, "hello"]);
  await subscriber.unsubscribe(`${base}-news`);
  subscriber.destroy();

  if (full) {
    assert.deepEqual(await redis.multi().set(key, "w").get(key).exec(), ["OK", "w"]);
    assert.equal(await redis.get(key), "w");
    const popper = redis.duplicate();
    popper.on("error", (error) => { throw error; });
    await popper.connect();
    const popped = popper.blPop(`${base}-q`, 10);
    await redis.rPush(`${base}-q`, "job");
    assert.deepEqual({ ...(await popped) }, { key: `${base}-q`, element: "job" });
    popper.destroy();
    const lua = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
    assert.equal(await redis.eval(lua, { keys: [`${base}-e`], arguments: ["x"] }), "x");
    assert.equal(await redis.zAdd(`${base}-z`, [{ score: 1.5, value: "m" }]), 1);
    assert.deepEqual((await redis.zRangeWithScores(`${base}-z`, 0, -1)).map((item) => ({ ...item })), [{ value: "m", score: 1.5 }]);
  }
  await assert.rejects(redis.sendCommand(["HSET", key, "f", "v"]), /WRONGTYPE/);
  assert.equal(await redis.del(key), 1);
  assert.equal(await redis.get(key), null);
  await redis.close();
}

await (client === "ioredis" ? ioredis() : nodeRedis());
console.log("all steps done");
