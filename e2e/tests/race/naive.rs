//! What the race looks for: a cache as client libraries build it. Invalidations are applied where
//! replies are read, values are kept later, by whoever asked. In between lies the race.

use std::{
    collections::{HashMap, VecDeque},
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use e2e::{Value, Wire, wire::encode};

type Asked = Mutex<(Wire, VecDeque<mpsc::Sender<Value>>)>;

struct Naive {
    kept: Mutex<HashMap<Vec<u8>, Value>>,
    asked: Asked,
}

/// Starts it in front of `upstream`; it lives as long as the test process.
pub fn start(upstream: SocketAddr) -> SocketAddr {
    let mut link = Wire::connect_resp3(upstream);
    assert_eq!(link.run("CLIENT TRACKING ON"), "OK");
    let replies = link.try_clone().unwrap();
    let naive = Arc::new(Naive {
        kept: Mutex::default(),
        asked: Mutex::new((link, VecDeque::new())),
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let reader = Arc::clone(&naive);
    thread::spawn(move || reader.read_replies(replies));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let naive = Arc::clone(&naive);
            thread::spawn(move || naive.serve(stream));
        }
    });
    address
}

impl Naive {
    fn read_replies(&self, mut link: Wire) {
        while let Ok(value) = link.read() {
            if let Value::Push(items) = &value {
                for key in items[1].items() {
                    self.kept.lock().unwrap().remove(key.bytes());
                }
            } else {
                let waiting = self.asked.lock().unwrap().1.pop_front();
                let _ = waiting.unwrap().send(value);
            }
        }
    }

    /// Understands `GET key` and nothing else.
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let mut requests = Wire::of(stream);
        while let Ok(request) = requests.read() {
            let key = request.items()[1].bytes().to_vec();
            let kept = self.kept.lock().unwrap().get(&key).cloned();
            let value = kept.unwrap_or_else(|| self.ask(&key));
            let reply = match &value {
                Value::Null => b"$-1\r\n".to_vec(),
                // A command of one word is framed as an array of one; its body is what we need.
                other => encode(&[other.bytes()])[4..].to_vec(),
            };
            if writer.write_all(&reply).is_err() {
                return;
            }
        }
    }

    fn ask(&self, key: &[u8]) -> Value {
        let (sender, receiver) = mpsc::channel();
        {
            let mut asked = self.asked.lock().unwrap();
            asked.1.push_back(sender);
            asked.0.send(&encode(&[b"GET", key])).unwrap();
        }
        let value = receiver.recv().unwrap();
        // Too late if the key was invalidated in the meantime.
        self.kept
            .lock()
            .unwrap()
            .insert(key.to_vec(), value.clone());
        value
    }
}
