//! Sends the replies that several links bring together.
//!
//! In front of a cluster the replies to one pipeline come from several servers, over as many
//! links, and a write to the app for each of them costs more than all the rest. So the replies to
//! commands that were read together leave together, after every link that had something in this
//! turn of the event loop was read. When one server takes its time, those of the others leave
//! without its own.

use std::{rc::Rc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::worker::Worker;

/// How long an incomplete answer is kept back; timers are exact to a millisecond. Measured (`bench/`,
/// three shards, pipeline 16): 1.6 writes to all sockets per pipeline; 2.3 when it was kept back for
/// three turns of the event loop, which are over before the next server has answered.
const PATIENCE: Duration = Duration::from_millis(1);

/// Wakes the task that sends.
#[derive(Default)]
pub struct Parting {
    read: Notify,
}

impl Parting {
    /// A link was read: its replies are sent at the end of the turn.
    pub fn soon(&self) {
        self.read.notify_one();
    }

    /// Sends, turn after turn, for as long as the event loop lives.
    pub async fn run(worker: Rc<Worker>) {
        let mut late = std::pin::pin!(sleep(Duration::ZERO));
        let mut waits = false;
        loop {
            tokio::select! {
                biased;
                () = worker.parting.read.notified() => {}
                () = &mut late, if waits => {
                    waits = false;
                    worker.refresh_now();
                }
            }
            if let Some(wait) = worker.flush_ripe(PATIENCE)
                && !waits
            {
                waits = true;
                late.as_mut().reset(Instant::now() + wait);
            }
        }
    }
}
