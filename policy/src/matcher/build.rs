//! Builds the trie of a [`Matcher`] and proves the bound on its walk.

use std::collections::HashMap;

use super::{MAX_RULES, MAX_VISITS, Matcher, MatcherError, NO_RULE, Node, ROOT, edge};
use crate::pattern::{Pattern, Segment};

pub(super) fn build(patterns: &[Pattern]) -> Result<Matcher, MatcherError> {
    if patterns.len() > MAX_RULES {
        return Err(MatcherError::TooManyRules(patterns.len()));
    }
    let mut trie = Trie {
        symbols: HashMap::default(),
        edges: HashMap::default(),
        nodes: vec![Node::EMPTY],
        parents: vec![None],
    };
    for (rule, pattern) in (0..NO_RULE).zip(patterns) {
        trie.insert(rule, pattern);
    }
    let most_visits = trie.most_visits();
    if most_visits > MAX_VISITS {
        return Err(MatcherError::TooManyOverlaps(most_visits));
    }
    Ok(Matcher {
        symbols: trie.symbols,
        edges: trie.edges,
        nodes: trie.nodes.into(),
        most_visits,
    })
}

struct Trie {
    symbols: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    edges: HashMap<u64, u32, foldhash::fast::RandomState>,
    nodes: Vec<Node>,
    /// The node above each node; `None` for the root. A parent has a lower number than its child.
    parents: Vec<Option<u32>>,
}

// === impl Node ===

impl Node {
    const EMPTY: Self = Self {
        first: NO_RULE,
        accept: NO_RULE,
        rest: NO_RULE,
        has_literals: false,
        capture: None,
    };
}

// === impl Trie ===

impl Trie {
    fn insert(&mut self, rule: u16, pattern: &Pattern) {
        let mut at = ROOT;
        for segment in pattern.segments() {
            self.node(at).first = self.node(at).first.min(rule);
            at = match segment {
                Segment::Rest => {
                    let node = self.node(at);
                    node.rest = node.rest.min(rule);
                    return;
                }
                Segment::Capture(_) => self.capture(at),
                Segment::Literal(literal) => self.literal(at, literal),
            };
        }
        let node = self.node(at);
        node.first = node.first.min(rule);
        node.accept = node.accept.min(rule);
    }

    fn capture(&mut self, at: u32) -> u32 {
        if let Some(next) = self.node(at).capture {
            return next;
        }
        let next = self.push(at);
        self.node(at).capture = Some(next);
        next
    }

    fn literal(&mut self, at: u32, literal: &[u8]) -> u32 {
        let new = number(self.symbols.len());
        let symbol = *self.symbols.entry(literal.into()).or_insert(new);
        if let Some(next) = self.edges.get(&edge(at, symbol)) {
            return *next;
        }
        let next = self.push(at);
        self.edges.insert(edge(at, symbol), next);
        self.node(at).has_literals = true;
        next
    }

    fn push(&mut self, parent: u32) -> u32 {
        let id = number(self.nodes.len());
        self.nodes.push(Node::EMPTY);
        self.parents.push(Some(parent));
        id
    }

    fn node(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// The most nodes that any key can visit: a node itself, then the worst of its literals and,
    /// because a segment may fit both, its capture.
    fn most_visits(&self) -> usize {
        let mut literals = vec![0_usize; self.nodes.len()];
        let mut captures = vec![0_usize; self.nodes.len()];
        let visits = |literals: &[usize], captures: &[usize], id: usize| {
            literals[id].saturating_add(captures[id]).saturating_add(1)
        };
        // Children first: they have the higher numbers.
        for (id, parent) in self.parents.iter().enumerate().rev() {
            let Some(parent) = *parent else { continue };
            let below = visits(&literals, &captures, id);
            let parent = parent as usize;
            if self.nodes[parent].capture == Some(number(id)) {
                captures[parent] = below;
            } else {
                literals[parent] = literals[parent].max(below);
            }
        }
        visits(&literals, &captures, ROOT as usize)
    }
}

/// Numbers of nodes and symbols fit: there are at most `MAX_RULES` × `MAX_SEGMENTS` of them.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a trie has at most MAX_RULES × MAX_SEGMENTS nodes")
}
