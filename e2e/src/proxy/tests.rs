//! The proxy before a server that says everything twice.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{Direction, Disturbance, Proxy, Which};
use crate::{server::loopback, wait};

/// Sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut from, mut to) = (&stream, &stream);
                std::io::copy(&mut from, &mut to)
            });
        }
    });
    address
}

fn connect(proxy: &Proxy, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    say(&mut stream, first);
    stream
}

fn say(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

#[test]
fn bytes_pass_whole_in_pieces_of_any_size() {
    let proxy = Proxy::before(echo(), 1);
    let mut stream = connect(&proxy, b"hello");
    let how = Disturbance {
        piece: 3,
        ..Disturbance::default()
    };
    proxy.disturb(Which::All, Direction::ToClient, how);
    say(&mut stream, &[7; 5000]);
    proxy.heal();
    say(&mut stream, &vec![8; 50_000]);
}

#[test]
fn one_kind_of_connection_is_delayed_and_the_other_is_not() {
    let proxy = Proxy::before(echo(), 1);
    let mut tracked = connect(&proxy, b"CLIENT TRACKING ON");
    let mut plain = connect(&proxy, b"PING");
    assert_eq!(proxy.connections(Which::Tracked), 1);
    let how = Disturbance {
        delay: Duration::from_secs(2),
        ..Disturbance::default()
    };
    proxy.disturb(Which::Tracked, Direction::ToClient, how);
    let begun = Instant::now();
    tracked.write_all(b"slow").unwrap();
    say(&mut plain, b"fast");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "the plain one waited as well"
    );
    let mut back = [0; 4];
    tracked.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"slow");
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[test]
fn what_is_stalled_arrives_after_healing() {
    let proxy = Proxy::before(echo(), 1);
    let mut stream = connect(&proxy, b"hello");
    let how = Disturbance {
        stall: true,
        ..Disturbance::default()
    };
    proxy.disturb(Which::All, Direction::ToServer, how);
    stream.write_all(b"later").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut back = [0; 5];
    assert!(stream.read(&mut back).is_err(), "it was not stalled");
    proxy.heal();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"later");
}

#[test]
fn a_connection_that_lost_bytes_is_reset_when_the_fault_ends() {
    let proxy = Proxy::before(echo(), 1);
    let mut stream = connect(&proxy, b"hello");
    let how = Disturbance {
        lose: true,
        ..Disturbance::default()
    };
    proxy.disturb(Which::All, Direction::ToServer, how);
    stream.write_all(b"lost").unwrap();
    wait::until_true("the bytes are lost", || {
        let connections = super::lock(&proxy.shared.connections);
        connections.iter().all(|one| one.torn.load(super::Relaxed))
    });
    proxy.heal();
    assert!(stream.read(&mut [0; 4]).is_err(), "it was not reset");
    wait::until_true("it is gone", || proxy.connections(Which::All) == 0);
}

#[test]
fn cut_connections_are_reset_and_refused_ones_too() {
    let proxy = Proxy::before(echo(), 1);
    let mut stream = connect(&proxy, b"hello");
    assert_eq!(proxy.cut(Which::Tracked), 0);
    assert_eq!(proxy.cut(Which::All), 1);
    assert!(stream.read(&mut [0; 4]).is_err(), "it was not reset");
    proxy.refuse();
    let mut refused = TcpStream::connect(proxy.address()).unwrap();
    refused
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert!(!matches!(refused.read(&mut [0; 4]), Ok(1..)));
    proxy.heal();
    connect(&proxy, b"again");
}
