//! The life of a link: it connects, is served, and connects anew until it is closed.

use std::{rc::Rc, sync::Arc, time::Duration};

use super::{Link, Status};
use crate::{
    clock::Tick,
    upstream::{
        Lost,
        backoff::Backoff,
        connect::{ConnectError, Connected},
        health::Permit,
    },
};

impl Link {
    /// Connects, serves, and reconnects until it is closed.
    pub(super) async fn run(self: Rc<Self>) {
        let limits = self.worker.active().config.resilience;
        let mut backoff = Backoff::new(limits.backoff_base.0, limits.backoff_max.0);
        loop {
            let attempt = tokio::select! {
                attempt = self.connect_if_permitted() => attempt,
                () = self.stopped.notified() => {
                    let stop = self.core.borrow_mut().stop.take();
                    if let Some(why) = stop.filter(|why| *why != Lost::Switched) {
                        self.went_down(&why);
                        return;
                    }
                    // To the new primary, without a pause.
                    backoff.reset();
                    continue;
                }
            };
            let lost = match attempt {
                Ok(connected) => {
                    backoff.reset();
                    self.came_up(connected.tracking_refused.as_deref());
                    self.serve(connected).await
                }
                Err(lost) => lost,
            };
            if lost != Lost::Demoted {
                self.worker.counters.upstream_errors.inc();
            }
            let was_up = self.core.borrow().status == Status::Up;
            if !matches!(
                lost,
                Lost::Closed | Lost::Replaced | Lost::Demoted | Lost::NoDatabase(_)
            ) {
                self.note_failure(&lost);
            }
            if self.went_down(&lost) {
                return;
            }
            // A connection that broke is tried again nearly at once: most breaks are short.
            let pause = if was_up {
                self.share_of(limits.backoff_base.0)
            } else {
                backoff.next(self.worker.random())
            };
            // Another link that comes up knows before the pause is over that Redis is back.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.worker.shared.upstream.is_back.notified() => {
                    // All links of this process know it now; they do not come all at once.
                    tokio::time::sleep(self.share_of(limits.backoff_base.0)).await;
                }
                () = self.stopped.notified() => {}
            }
            if !self.core.borrow().ends() {
                tokio::select! {
                    () = self.until_permitted() => {}
                    () = self.stopped.notified() => {}
                }
            }
            if self.core.borrow().ends() {
                self.went_down(&self.why_stopped());
                return;
            }
            if self.core.borrow().is_switched() {
                self.core.borrow_mut().stop = None;
                backoff.reset();
            }
        }
    }

    async fn connect(&self) -> Result<Connected, Lost> {
        let endpoint = if let Ok(endpoint) = self.worker.locate(&self.server) {
            endpoint
        } else {
            // Clients wait, as for any connection; a primary that becomes known ends this.
            let limit = self.worker.active().config.resilience.connect_timeout.0;
            tokio::time::sleep(limit).await;
            self.worker.locate(&self.server)?
        };
        let connected = endpoint.connect(self.handshake).await;
        connected.map_err(|error| match error {
            ConnectError::Refused {
                command: "SELECT",
                answer,
            } => Lost::NoDatabase(answer.into()),
            error @ ConnectError::Refused { .. } => Lost::Refused(error.to_string().into()),
            error => Lost::Unavailable(error.to_string().into()),
        })
    }

    fn why_stopped(&self) -> Lost {
        let stop = self.core.borrow_mut().stop.take();
        stop.unwrap_or(Lost::Closed)
    }

    /// A random part of a span.
    fn share_of(&self, span: Duration) -> Duration {
        span.mul_f64(f64::from(self.worker.random()) / f64::from(u32::MAX))
    }

    fn note_failure(&self, lost: &Lost) {
        let breaker = self.worker.active().config.resilience.circuit_breaker;
        let why = lost.to_string();
        self.health
            .borrow()
            .failed(breaker, &why, self.worker.random());
    }

    /// Another server may have taken its place, at another address.
    fn follow_address(&self) {
        let health = self.worker.health_of(&self.server);
        if !Arc::ptr_eq(&health, &self.health.borrow()) {
            let before = self.health.replace(health);
            self.worker.shared.healths.forget(&before);
        }
    }

    /// Waits while the circuit is open. Who may send the probe sends it with its next connection.
    async fn until_permitted(&self) {
        loop {
            self.follow_address();
            let resilience = self.worker.active().config.resilience;
            let patience = resilience.connect_timeout.0 + resilience.command_timeout.0;
            let permit = self
                .health
                .borrow()
                .permit(resilience.circuit_breaker, patience);
            match permit {
                Permit::Go => return,
                Permit::Probe => return self.probes.set(true),
                Permit::Wait(left) => {
                    // Its end, and that of the link, are looked for now and then.
                    let left = left.min(Duration::from_millis(500));
                    tokio::select! {
                        () = tokio::time::sleep(left) => {}
                        () = self.worker.shared.upstream.is_back.notified() => {}
                    }
                }
            }
        }
    }

    /// Connects, and where the circuit is half open sends the probe.
    async fn connect_if_permitted(&self) -> Result<Connected, Lost> {
        if self.health.borrow().is_cut_off() && !self.probes.get() {
            return Err(Lost::Unavailable(self.health.borrow().words().into()));
        }
        let health = Arc::clone(&self.health.borrow());
        let _turn = health.attempts.acquire().await;
        let mut connected = self.connect().await;
        if self.probes.take() {
            let active = self.worker.active();
            let resilience = active.config.resilience;
            let result = match &mut connected {
                Ok(connected) => {
                    let key = active.key_in_redis(crate::worker::PROOF_KEY);
                    connected.probe(&key, resilience.command_timeout.0).await
                }
                Err(lost) => Err(lost.to_string()),
            };
            let random = self.worker.random();
            let outcome = result.as_ref().map(|&()| ()).map_err(String::as_str);
            self.health
                .borrow()
                .probed(resilience.circuit_breaker, outcome, random);
            if let Err(why) = result {
                return Err(Lost::Unavailable(why.into()));
            }
        }
        connected
    }

    fn came_up(&self, tracking_refused: Option<&str>) {
        self.worker.counters.upstream_connects.inc();
        self.up_since.set(Tick::now());
        {
            let mut core = self.core.borrow_mut();
            core.status = Status::Up;
            core.leaving = false;
            if !core.ends() {
                core.stop = None;
            }
            // What has waited is sent now; the time for its reply begins.
            let now = Tick::now();
            for pending in core.pending.iter_mut().filter(|pending| pending.queued) {
                self.leave_queue(pending);
                pending.since = now;
            }
        }
        self.worker.link_came_up(self, tracking_refused);
        self.wake_waiters();
    }
}
