//! Carries the bytes of one connection, each direction on its own: read, wait until they are due,
//! write.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Connection, Direction, Disturbance, Shared, lock};
use crate::random::Random;

/// Pieces under way in one direction; more press back on the sender.
const UNDER_WAY: usize = 256;

/// How the handshake of a connection that gets invalidations is told from others.
const TRACKING: &[u8] = b"TRACKING";

/// How those of replicas and Sentinels are told.
const SPARED: [&[u8]; 2] = [b"REPLCONF", b"sentinel-"];

/// Bytes and when they are due.
type Piece = (Vec<u8>, Instant);

/// Carries bytes until either side closes or the connection is cut.
pub(super) async fn both_ways(
    client: TcpStream,
    server: TcpStream,
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let lane = |direction| Lane {
        direction,
        shared: Arc::clone(shared),
        connection: Arc::clone(connection),
    };
    let commands = lane(Direction::ToServer);
    let replies = lane(Direction::ToClient);
    let mut cut = connection.cut.subscribe();
    let (commands_out, commands_in) = mpsc::channel(UNDER_WAY);
    let (replies_out, replies_in) = mpsc::channel(UNDER_WAY);
    let is_cut = tokio::select! {
        () = commands.collect(&from_client, commands_out) => false,
        () = replies.collect(&from_server, replies_out) => false,
        () = commands.deliver(&to_server, commands_in) => false,
        () = replies.deliver(&to_client, replies_in) => false,
        _ = cut.wait_for(|cut| *cut) => true,
    };
    if is_cut {
        // Closing without lingering sends a reset; a half that is dropped would say a polite
        // goodbye before.
        for half in [to_client, to_server] {
            let _ = half.as_ref().set_zero_linger();
            half.forget();
        }
    }
}

struct Lane {
    direction: Direction,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Lane {
    fn disturbance(&self) -> Disturbance {
        let settings = self.shared.settings.borrow();
        self.connection.disturbance(self.direction, &settings)
    }

    /// Reads what comes and dates it.
    async fn collect(&self, from: &OwnedReadHalf, pieces: mpsc::Sender<Piece>) {
        let mut random = Random::new(lock(&self.shared.seeds).number());
        let mut due = Instant::now();
        let mut handshake = Vec::new();
        loop {
            let mut buffer = Vec::with_capacity(16 * 1024);
            if from.readable().await.is_err() {
                break;
            }
            match from.try_read_buf(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            }
            if self.direction == Direction::ToServer && handshake.len() < 1024 {
                handshake.extend_from_slice(&buffer);
                let has = |what: &[u8]| handshake.windows(what.len()).any(|word| word == what);
                if has(TRACKING) {
                    self.connection.tracked.store(true, Relaxed);
                }
                if SPARED.into_iter().any(has) {
                    self.connection.spared.store(true, Relaxed);
                }
            }
            let how = self.disturbance();
            if how.lose {
                self.connection.torn.store(true, Relaxed);
                continue;
            }
            let more = how
                .jitter
                .mul_f64(f64::from(u16::try_from(random.below(1000)).unwrap_or(0)) / 1000.0);
            due = due.max(Instant::now() + how.delay + more);
            if pieces.send((buffer, due)).await.is_err() {
                return;
            }
        }
        if self.disturbance().lose {
            // That it was closed is lost as well.
            self.connection.torn.store(true, Relaxed);
            std::future::pending::<()>().await;
        }
        drop(pieces);
        // The other half ends the connection once it has delivered the rest.
        std::future::pending::<()>().await;
    }

    /// Writes what is due.
    async fn deliver(&self, to: &OwnedWriteHalf, mut pieces: mpsc::Receiver<Piece>) {
        let mut settings = self.shared.settings.subscribe();
        while let Some((bytes, due)) = pieces.recv().await {
            if due > Instant::now() + Duration::from_micros(100) {
                sleep_until(due).await;
            }
            let flows = settings.wait_for(|settings| {
                let how = self.connection.disturbance(self.direction, settings);
                !how.stall
            });
            if flows.await.is_err() {
                return;
            }
            let size = match self.disturbance().piece {
                0 => bytes.len(),
                size => size,
            };
            for piece in bytes.chunks(size) {
                if write(to, piece).await.is_err() {
                    return;
                }
                if size < bytes.len() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

async fn write(to: &OwnedWriteHalf, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
