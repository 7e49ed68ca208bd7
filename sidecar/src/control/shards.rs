//! In front of a cluster each primary has a table of tracked keys of its own: all are asked, and the
//! fullest is what there is to say.

use std::collections::BTreeMap;

use super::tracking::TrackingTable;
use crate::{
    discovery::ask::Conn,
    resp::reply::Value,
    state::Shared,
    upstream::{Endpoint, topology::Address},
    worker,
};

/// An answer takes no longer: the other shards wait for it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

const QUESTIONS: [&str; 3] = [
    "INFO stats",
    "INFO clients",
    "CONFIG GET tracking-table-max-keys",
];

/// A question and the words in which it was refused.
type Refusal = (&'static str, String);

/// Connections to the primaries.
#[derive(Default)]
pub(super) struct Shards {
    conns: BTreeMap<Address, Conn>,
}

impl Shards {
    /// The fullest table after `was`, and the refusals of those that do not tell.
    pub(super) async fn fullest(
        &mut self,
        shared: &Shared,
        was: &TrackingTable,
    ) -> (TrackingTable, Vec<Refusal>) {
        let mut fullest = TrackingTable::default();
        let mut refusals = Vec::new();
        let Ok(Some(endpoint)) = worker::endpoint(&shared.active()) else {
            return (fullest, refusals);
        };
        let topology = shared.topology.current();
        let primaries = || topology.nodes.iter().map(|node| &node.primary);
        self.conns
            .retain(|address, _| primaries().any(|one| one == address));
        for address in primaries() {
            // Who does not answer is away, and the data path says so.
            let Some(mut conn) = self.connection(&endpoint, address).await else {
                continue;
            };
            let Some(said) = said(&mut conn, &mut refusals).await else {
                continue;
            };
            self.conns.insert(address.clone(), conn);
            let [stats, clients, limit] = said;
            let mut table = was.next(&stats, &clients, limit.parse().ok());
            table.server = Some(address.to_string());
            if table.is_fuller_than(&fullest) {
                fullest = table;
            }
        }
        (fullest, refusals)
    }

    async fn connection(&mut self, endpoint: &Endpoint, address: &Address) -> Option<Conn> {
        match self.conns.remove(address) {
            Some(conn) => Some(conn),
            None => Conn::open(&endpoint.at(address)).await.ok(),
        }
    }
}

/// Three answers, empty where they are refused; `None`: the connection broke.
async fn said(conn: &mut Conn, refusals: &mut Vec<Refusal>) -> Option<[String; 3]> {
    let mut said = [const { String::new() }; 3];
    for (question, answer) in QUESTIONS.into_iter().zip(&mut said) {
        let words: Vec<&str> = question.split(' ').collect();
        let frame = conn.ask(&words, PATIENCE).await.ok()?;
        match last_text(&frame) {
            Ok(text) => *answer = text,
            Err(why) => refusals.push((question, why)),
        }
    }
    Some(said)
}

/// The text of an answer, or of the last item of a list; else the error.
fn last_text(frame: &[u8]) -> Result<String, String> {
    let value = Value::read(frame).map_err(|error| error.to_string())?;
    let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    match &value {
        Value::Error(text) => Err(shown(text)),
        Value::Text(text) => Ok(shown(text)),
        value => {
            let last = value.list().and_then(<[_]>::last).and_then(Value::text);
            Ok(last.map(shown).unwrap_or_default())
        }
    }
}
