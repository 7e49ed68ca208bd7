//! Who is who in a shard, as its servers, Sentinels and agents tell it.

use std::{fs, net::SocketAddr, time::Duration};

use serde_json::{Value as Json, json};

use super::{MASTER, Pod, Shard};
use crate::{Value, Wire, environment::unusable, http, wait};

impl Shard {
    /// Pods with servers.
    pub fn servers(&self) -> std::ops::Range<usize> {
        0..self.options.servers
    }

    /// Pods with Sentinels.
    pub fn sentinels(&self) -> std::ops::Range<usize> {
        self.options.servers..self.pods.len()
    }

    /// A pod.
    pub fn pod(&self, number: usize) -> &Pod {
        &self.pods[number]
    }

    /// The pod that others know by that address or name.
    pub fn number_of(&self, address: &str) -> usize {
        let found = (0..self.pods.len()).find(|number| self.known_as(*number) == address);
        found.unwrap_or_else(|| unusable(&format!("no pod has the address {address}")))
    }

    /// Where a pod's server or Sentinel listens.
    pub fn address(&self, number: usize) -> SocketAddr {
        let pod = &self.pods[number];
        SocketAddr::new(pod.address, self.port_of(pod))
    }

    /// Where a pod's agent listens.
    pub fn agent(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.pods[number].address, self.ports.http)
    }

    /// A connection to a server or Sentinel, logged in.
    pub fn try_connect(&self, number: usize, user: &str, password: &str) -> Option<Wire> {
        let mut wire = Wire::try_connect(self.address(number)).ok()?;
        wire.patience(Duration::from_secs(3));
        let reply = wire.try_call(&["AUTH", user, password]).ok()?;
        (reply == "OK").then_some(wire)
    }

    /// A connection as the operator, with its first password.
    pub fn operator(&self, number: usize) -> Wire {
        wait::until("the operator logs in", || {
            self.try_connect(number, "operator", "operator-first")
        })
    }

    /// `/state` of an agent.
    pub fn state(&self, number: usize) -> Option<Json> {
        let answer = http::get(self.agent(number), "/state").ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Status of one of the agent's paths.
    pub fn status(&self, number: usize, path: &str) -> Option<u16> {
        Some(http::get(self.agent(number), path).ok()?.status)
    }

    /// The primary that most Sentinels name.
    pub fn named(&self) -> Option<usize> {
        let mut names: Vec<usize> = self
            .sentinels()
            .filter_map(|number| {
                let mut wire = self.try_connect(number, "operator", "operator-first")?;
                let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
                let reply = wire.try_call(&command).ok()?;
                match &reply {
                    Value::Array(items) => Some(self.number_of(&items.first()?.text())),
                    _ => None,
                }
            })
            .collect();
        names.sort_unstable();
        let (all, wanted) = (names.clone(), self.options.sentinels / 2 + 1);
        names.dedup();
        names
            .into_iter()
            .find(|name| all.iter().filter(|one| *one == name).count() >= wanted)
    }

    /// Waits until all pods that run are ready, and the Sentinels know them; the answer is the
    /// primary.
    pub fn until_formed(&self) -> usize {
        wait::until("the shard is formed", || self.formed())
    }

    fn formed(&self) -> Option<usize> {
        let running: Vec<usize> = (0..self.pods.len())
            .filter(|number| self.pods[*number].process.is_some())
            .collect();
        if !running
            .iter()
            .all(|number| self.status(*number, "/ready") == Some(200))
        {
            return None;
        }
        if self.options.sentinels == 0 {
            return Some(0);
        }
        let primary = self.named()?;
        let replicas = running
            .iter()
            .filter(|number| self.servers().contains(number))
            .count()
            - 1;
        let state = self.state(primary)?;
        let followers = state["server"]["replicas"].as_array()?;
        let online = followers
            .iter()
            .filter(|one| one["online"] == json!(true))
            .count();
        let is_open = state["frozen"].is_null() && state["server"]["role"] == "Primary";
        if online != replicas || !is_open {
            return None;
        }
        let known = self.sentinels().all(|number| {
            self.pods[number].process.is_none() || self.sees(number, replicas).unwrap_or(false)
        });
        known.then_some(primary)
    }

    /// Whether a Sentinel could choose every replica, and knows the other Sentinels.
    fn sees(&self, sentinel: usize, replicas: usize) -> Option<bool> {
        let mut wire = self.try_connect(sentinel, "operator", "operator-first")?;
        let reply = wire.try_call(&["SENTINEL", "REPLICAS", MASTER]).ok()?;
        let fit = |replica: &&Value| {
            let text = replica.to_string();
            text.contains("flags slave ")
                && text.contains("master-link-status ok")
                && text.contains("slave-priority 100")
        };
        let fit = reply.items().iter().filter(fit).count();
        let others = wire.try_call(&["SENTINEL", "SENTINELS", MASTER]).ok()?;
        let up = |other: &&Value| other.to_string().contains("flags sentinel ");
        let others = others.items().iter().filter(up).count();
        let running = self
            .sentinels()
            .filter(|number| self.pods[*number].process.is_some());
        Some(fit == replicas && others + 1 == running.count())
    }

    /// Everything a pod has logged.
    pub fn log(&self, number: usize) -> String {
        let path = self
            .folder
            .path()
            .join(format!("{}.log", self.pods[number].name));
        fs::read_to_string(path).unwrap_or_default()
    }
}
