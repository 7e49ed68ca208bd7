// Two Socket.IO servers that know of each other only by their streams in Redis, each with a
// connection of its own: broadcasts, sockets of the other server, connection state recovery.
// usage: node socketio.js ioredis|node-redis PORT
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-streams-adapter";
import Redis from "ioredis";
import { createClient } from "redis";
import { Server } from "socket.io";
import { io as connect } from "socket.io-client";

const [client, port] = process.argv.slice(2);
setTimeout(() => {
  console.error("no end after 30 seconds");
  process.exit(1);
}, 30_000).unref();

async function redis() {
  if (client === "ioredis") return new Redis({ port: Number(port), host: "127.0.0.1" });
  return createClient({ url: `redis://127.0.0.1:${port}` }).connect();
}

async function server() {
  const http = createServer();
  const io = new Server(http, {
    adapter: createAdapter(await redis(), { heartbeatInterval: 100 }),
    connectionStateRecovery: { maxDisconnectionDuration: 20_000 },
  });
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  return { io, url: `http://127.0.0.1:${http.address().port}` };
}

// A message that comes only once the servers have found each other is sent again until it does.
async function until(what, probe) {
  for (let turn = 0; turn < 200; turn++) {
    if (await probe()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(what);
}

const [one, two] = [await server(), await server()];
const options = { transports: ["websocket"], reconnectionDelay: 50, reconnectionDelayMax: 100 };
const [first, second] = [connect(one.url, options), connect(two.url, options)];
await Promise.all([once(first, "connect"), once(second, "connect")]);

const heard = [];
second.on("news", (text) => heard.push(text));
await until("a broadcast of one server reaches a client of the other", () => {
  one.io.emit("news", "hello");
  return heard.includes("hello");
});
const binary = once(second, "binary");
one.io.emit("binary", Buffer.from([1, 2, 3]));
assert.deepEqual([...new Uint8Array((await binary)[0])], [1, 2, 3]);
await until("both servers see all sockets", async () => {
  const sockets = await two.io.fetchSockets();
  return sockets.length === 2;
});
two.io.on("ping", (text, answer) => answer(`${text} pong`));
await until("a server answers the other", async () => {
  const answers = await one.io.serverSideEmitWithAck("ping", "ping");
  return answers.length === 1 && answers[0] === "ping pong";
});

// The connection breaks; what was sent meanwhile is fetched from the stream.
const before = second.id;
second.io.engine.close();
one.io.emit("news", "missed");
await until("the client is back", () => second.connected);
assert.equal(second.recovered, true, "the session was recovered");
assert.equal(second.id, before);
await until("the missed message came", () => heard.includes("missed"));

console.log("all steps done");
process.exit(0);
