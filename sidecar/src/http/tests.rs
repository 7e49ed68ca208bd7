//! The adapter between a real HTTP socket and an event loop of a few lines.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use policy::{Policy, SidecarConfig};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;
use crate::{
    config::{Credentials, Secret},
    state::Active,
};

/// What the event loop holds, and what it was told.
#[derive(Default)]
struct Loop {
    keys: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    said: Mutex<Vec<String>>,
    connections: AtomicU32,
    breaks: AtomicBool,
}

impl Loop {
    fn reply(&self, words: &[Vec<u8>]) -> Option<Vec<u8>> {
        let lossy: Vec<_> = words
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .collect();
        self.said.lock().unwrap().push(lossy.join(" "));
        let mut keys = self.keys.lock().unwrap();
        Some(match &*lossy[0] {
            "HELLO" => b"%1\r\n+server\r\n+redis\r\n".to_vec(),
            "CLIENT" => b"+OK\r\n".to_vec(),
            _ if self.breaks.swap(false, Relaxed) => return None,
            "PANNIER.READ" => match keys.get(&words[1]) {
                Some(value) => {
                    let head = format!("*5\r\n${}\r\n", value.len());
                    [head.as_bytes(), value, b"\r\n+local\r\n+hit\r\n+ghosts\r\n:4200\r\n"].concat()
                }
                None => b"*5\r\n_\r\n+none\r\n+miss\r\n_\r\n:-2\r\n".to_vec(),
            },
            "SET" if words[1] == b"refused" => b"-DENIED rule `x` refuses it\r\n".to_vec(),
            "SET" => {
                keys.insert(words[1].clone(), words[2].clone());
                b"+OK\r\n".to_vec()
            }
            "DEL" => format!(":{}\r\n", u8::from(keys.remove(&words[1]).is_some())).into_bytes(),
            "PANNIER.STATS" => {
                b"%3\r\n+hit_rate\r\n,0.5\r\n+total_keys\r\n:3\r\n+rules\r\n%1\r\n+a-b\r\n%1\r\n+hits\r\n:1\r\n".to_vec()
            }
            other => format!("-ERR unknown command '{other}'\r\n").into_bytes(),
        })
    }
}

async fn turn(shared: Arc<Loop>, stream: UnixStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let count: usize = line.trim_end().strip_prefix('*')?.parse().ok()?;
        let mut words = Vec::new();
        for _ in 0..count {
            line.clear();
            stream.read_line(&mut line).await.ok()?;
            let len: usize = line.trim_end().strip_prefix('$')?.parse().ok()?;
            let mut word = vec![0; len + 2];
            stream.read_exact(&mut word).await.ok()?;
            word.truncate(len);
            words.push(word);
        }
        let reply = shared.reply(&words)?;
        stream.write_all(&reply).await.ok()?;
    }
}

struct Stage {
    event_loop: Arc<Loop>,
    address: std::net::SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Stage {
    async fn new(password: Option<&str>) -> Self {
        let config = SidecarConfig::from_yaml("sidecar: {maxBulkSize: 1Mi}").unwrap();
        let policy = Policy::compile(&config).unwrap();
        let credentials = Credentials {
            local_password: password.map(Secret::new),
            ..Credentials::default()
        };
        let shared = Shared::new(
            Active {
                config,
                policy,
                prefix: None,
                credentials,
            },
            1,
        );
        let event_loop = Arc::new(Loop::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = Arc::clone(&event_loop);
        let open = move || {
            let (ours, theirs) = UnixStream::pair()?;
            known.connections.fetch_add(1, Relaxed);
            tokio::spawn(turn(Arc::clone(&known), theirs));
            Ok(ours)
        };
        let serving = tokio::spawn(serve(listener, open, shared));
        Self {
            event_loop,
            address,
            serving,
        }
    }

    /// Status, head in lower case, and body.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let host = if head.contains("Host:") {
            ""
        } else {
            "Host: localhost\r\n"
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {}\r\n{head}\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .await
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8(answer[..end].to_vec())
            .unwrap()
            .to_lowercase();
        (
            head[9..12].parse().unwrap(),
            head,
            answer[end + 4..].to_vec(),
        )
    }

    async fn problem(&self, method: &str, path: &str, head: &str) -> (u16, String) {
        let (status, head, body) = self.ask(method, path, head, b"").await;
        assert!(
            head.contains("content-type: application/problem+json"),
            "{head}"
        );
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["status"], status);
        (
            status,
            format!("{} {}", problem["title"], problem["detail"]),
        )
    }

    fn said(&self) -> Vec<String> {
        let said = self.event_loop.said.lock().unwrap();
        said.iter()
            .filter(|said| !said.starts_with("CLIENT"))
            .cloned()
            .collect()
    }
}

#[tokio::test]
async fn a_value_is_put_read_and_deleted_and_headers_say_where_it_came_from() {
    let stage = Stage::new(None).await;
    let (status, head, _) = stage.ask("GET", "/v1/cache/a", "", b"").await;
    assert_eq!(status, 404);
    for line in [
        "x-pannier-result: miss",
        "x-pannier-tier: none",
        "x-pannier-rule: -",
        "x-pannier-ttl-ms: -2",
    ] {
        assert!(head.contains(line), "{line} is missing: {head}");
    }
    let (status, _, _) = stage
        .ask("PUT", "/v1/cache/a?ttl=5m", "", b"bin\0\r\nary")
        .await;
    assert_eq!(status, 204);
    let (status, head, body) = stage.ask("GET", "/v1/cache/a", "", b"").await;
    assert_eq!((status, &body[..]), (200, &b"bin\0\r\nary"[..]));
    for line in [
        "x-pannier-result: hit",
        "x-pannier-tier: local",
        "x-pannier-rule: ghosts",
        "x-pannier-ttl-ms: 4200",
    ] {
        assert!(head.contains(line), "{line} is missing: {head}");
    }
    assert_eq!(stage.ask("DELETE", "/v1/cache/a", "", b"").await.0, 204);
    assert_eq!(stage.ask("DELETE", "/v1/cache/a", "", b"").await.0, 404);
    assert_eq!(stage.ask("PUT", "/v1/cache/b%20c", "", b"v").await.0, 204);
    let said = stage.said();
    assert!(said[0].starts_with("HELLO 3"), "{said:?}");
    assert_eq!(said[2], "SET a bin\0\r\nary PX 300000");
    assert_eq!(said[6], "SET b c v");
    assert_eq!(stage.event_loop.connections.load(Relaxed), 1);
}

#[tokio::test]
async fn stats_are_json_with_the_names_of_json() {
    let stage = Stage::new(None).await;
    let (status, _, body) = stage.ask("GET", "/v1/stats", "", b"").await;
    assert_eq!(status, 200);
    let figures: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        figures,
        serde_json::json!({"hitRate": 0.5, "totalKeys": 3, "rules": {"a-b": {"hits": 1}}})
    );
}

#[tokio::test]
async fn what_cannot_be_done_names_value_and_remedy() {
    let stage = Stage::new(None).await;
    for (method, path, status, part) in [
        ("GET", "/v1/nosuch", 404, "/v1/cache/{key}"),
        ("GET", "/v1/cache/", 400, "for example"),
        ("GET", "/v1/cache/%zz", 400, "%25"),
        ("PATCH", "/v1/cache/a", 405, "GET, PUT, DELETE"),
        ("POST", "/v1/stats", 405, "use GET"),
        ("PUT", "/v1/cache/a?ttl=5", 400, "5m"),
        ("PUT", "/v1/cache/a?ttl=0s", 400, "at once"),
        ("PUT", "/v1/cache/a?tll=5m", 400, "tll"),
        ("GET", "/v1/cache/a?ttl=5m", 400, "ttl"),
        ("PUT", "/v1/cache/refused", 403, "DENIED"),
    ] {
        let (found, problem) = stage.problem(method, path, "").await;
        assert_eq!(found, status, "{method} {path}: {problem}");
        assert!(problem.contains(part), "{method} {path}: {problem}");
    }
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_before_it_arrives() {
    let stage = Stage::new(None).await;
    // Announced and never sent: the answer does not wait for it.
    let head = "PUT /v1/cache/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n";
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    // In pieces, without an announcement.
    let chunk = [
        &b"100000\r\n"[..],
        &vec![b'x'; 0x10_0000],
        b"\r\n1\r\nx\r\n0\r\n\r\n",
    ]
    .concat();
    let head = "PUT /v1/cache/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream
        .write_all(&[head.as_bytes(), &chunk].concat())
        .await
        .unwrap();
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    let longest = vec![b'x'; 1 << 20];
    assert_eq!(stage.ask("PUT", "/v1/cache/a", "", &longest).await.0, 204);
    assert_eq!(stage.ask("GET", "/v1/cache/a", "", b"").await.2, longest);
}

#[tokio::test]
async fn web_pages_under_other_names_are_turned_away() {
    let stage = Stage::new(None).await;
    let (status, problem) = stage
        .problem("GET", "/v1/cache/a", "Host: evil.example\r\n")
        .await;
    assert_eq!(status, 421);
    assert!(
        problem.contains("evil.example") && problem.contains("localhost"),
        "{problem}"
    );
    assert!(stage.said().is_empty());
}

#[tokio::test]
async fn a_local_password_is_asked_for_and_given_to_the_event_loop() {
    let stage = Stage::new(Some("canary")).await;
    for head in ["", "Authorization: Bearer wrong\r\n"] {
        let (status, problem) = stage.problem("GET", "/v1/cache/a", head).await;
        assert_eq!(status, 401);
        assert!(!problem.contains("canary"), "{problem}");
    }
    let (status, _, _) = stage
        .ask(
            "PUT",
            "/v1/cache/a",
            "Authorization: Bearer canary\r\n",
            b"v",
        )
        .await;
    assert_eq!(status, 204);
    assert!(
        stage.said()[0].contains("AUTH default canary"),
        "{:?}",
        stage.said()
    );
}

#[tokio::test]
async fn a_broken_way_in_is_opened_again() {
    let stage = Stage::new(None).await;
    assert_eq!(stage.ask("PUT", "/v1/cache/a", "", b"v").await.0, 204);
    stage.event_loop.breaks.store(true, Relaxed);
    let (status, problem) = stage.problem("GET", "/v1/cache/a", "").await;
    assert_eq!(status, 502, "{problem}");
    assert_eq!(stage.ask("GET", "/v1/cache/a", "", b"").await.0, 200);
    assert_eq!(stage.event_loop.connections.load(Relaxed), 2);
}
