//! All rules of a policy in one walk over the key: the first rule that matches wins.
//!
//! The rules form a trie over segments. A node has literal edges, found by hash, and at most one
//! capture edge, so a segment costs the same whatever the number of rules. Where a segment fits
//! both, both are tried, the one that can win first; a branch whose rules all come later than the
//! match at hand is skipped. `build` computes the most nodes that any key can visit and refuses
//! rules that exceed [`MAX_VISITS`].

mod build;

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::pattern::{MAX_PATTERN_LEN, Pattern};

/// Most rules of one policy.
pub const MAX_RULES: usize = 1000;
/// Most nodes that a key may visit in the worst case (P9). Ordinary rules need one per segment.
pub const MAX_VISITS: usize = 128;

/// Index of a rule in its policy; lower means earlier, and the earliest match wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u16);

/// The compiled patterns of all rules.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Every literal segment of any pattern, numbered.
    symbols: HashMap<Box<[u8]>, u32, RandomState>,
    /// `node << 32 | symbol` → node.
    edges: HashMap<u64, u32, RandomState>,
    nodes: Box<[Node]>,
    most_visits: usize,
}

/// Why the rules could not be compiled together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// Literals and captures alternate in the same places of many patterns, so that a key would
    /// have to be compared along too many ways.
    #[error(
        "the patterns overlap so much that a key may need {0} comparisons, at most {MAX_VISITS} are allowed; begin patterns with a literal segment of their own, or use fewer captures before literals"
    )]
    TooManyOverlaps(usize),
    /// More rules than allowed.
    #[error(
        "there are {0} rules, at most {MAX_RULES} are allowed; join rules that differ in one segment by a capture"
    )]
    TooManyRules(usize),
}

/// What the rules that share the segments up to here do next.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// First rule anywhere from here on.
    first: u16,
    /// First rule that ends here.
    accept: u16,
    /// First rule whose wildcard begins here.
    rest: u16,
    /// Whether there are literal edges; without one the segment need not be hashed.
    has_literals: bool,
    /// Next node for any segment that is not empty.
    capture: Option<u32>,
}

const NO_RULE: u16 = u16::MAX;
const ROOT: u32 = 0;

// === impl Matcher ===

impl Matcher {
    /// Compiles the patterns of all rules, in the order of the rules.
    pub fn compile(patterns: &[Pattern]) -> Result<Self, MatcherError> {
        build::build(patterns)
    }

    /// The first rule whose pattern matches the key. Does not allocate.
    pub fn find(&self, key: &[u8]) -> Option<RuleId> {
        let mut best = NO_RULE;
        self.walk(ROOT, key, &mut best, &mut |_| {});
        (best != NO_RULE).then_some(RuleId(best))
    }

    /// The most nodes that any key can make [`Self::find`] visit.
    pub fn most_visits(&self) -> usize {
        self.most_visits
    }

    /// Walks from a node along what is left of the key, keeping the earliest rule met in `best`
    /// and telling each node that it enters. Calls itself only where a segment fits a literal and
    /// a capture, so never deeper than a pattern has segments.
    fn walk(&self, from: u32, key: &[u8], best: &mut u16, entered: &mut impl FnMut(u32)) {
        let mut at = from;
        let mut left = key;
        loop {
            entered(at);
            let node = self.node(at);
            if !left.is_empty() {
                *best = node.rest.min(*best);
            }
            let end = left.iter().position(|byte| *byte == b':');
            let segment = &left[..end.unwrap_or(left.len())];
            let literal = self.literal(node, at, segment);
            let capture = node.capture.filter(|_| !segment.is_empty());
            let Some(end) = end else {
                for next in [literal, capture].into_iter().flatten() {
                    *best = self.node(next).accept.min(*best);
                }
                return;
            };
            left = &left[end + 1..];
            at = match (literal, capture) {
                (Some(literal), Some(capture)) => {
                    let (sooner, later) = if self.node(literal).first < self.node(capture).first {
                        (literal, capture)
                    } else {
                        (capture, literal)
                    };
                    if self.node(sooner).first < *best {
                        self.walk(sooner, left, best, entered);
                    }
                    later
                }
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => return,
            };
            if self.node(at).first >= *best {
                return;
            }
        }
    }

    #[inline]
    fn literal(&self, node: &Node, at: u32, segment: &[u8]) -> Option<u32> {
        if !node.has_literals || segment.len() > MAX_PATTERN_LEN {
            return None;
        }
        let symbol = self.symbols.get(segment)?;
        self.edges.get(&edge(at, *symbol)).copied()
    }

    #[inline]
    fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize]
    }
}

const fn edge(node: u32, symbol: u32) -> u64 {
    (node as u64) << 32 | symbol as u64
}

#[cfg(test)]
mod tests;
