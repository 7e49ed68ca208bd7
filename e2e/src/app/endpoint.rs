//! `GET /` gives the report, `/begin` forgets what was counted, `/lost` looks for every acknowledged
//! write. Whatever is asked of an app without traffic is answered with 200: it is a probe.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use serde_json::{Value as Json, json};

use super::Traffic;

/// Serves for as long as the process lives.
pub fn serve(address: SocketAddr, traffic: Option<Traffic>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let traffic = traffic.clone();
            // One that says nothing must not hold up the others.
            thread::spawn(move || answer(stream, traffic.as_ref()));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream, traffic: Option<&Traffic>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk)?;
        if read == 0 || head.len() > 16 * 1024 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..read]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, body) = traffic.map_or((200, Json::Null), |traffic| said(path, traffic));
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\n{body}",
        body.len()
    )
}

fn said(path: &str, traffic: &Traffic) -> (u16, Json) {
    match path {
        "/begin" => {
            traffic.begin();
            (200, Json::Null)
        }
        "/lost" => match traffic.lost() {
            Ok(lost) => (200, json!(lost)),
            Err(error) => (503, json!(error.to_string())),
        },
        _ => (200, json!(traffic.report())),
    }
}
