//! What a server answers, as a tree.

use std::{
    fmt::{self, Display},
    io::BufRead,
};

/// A reply: its first line, or for a bulk string its content too, and what is nested in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub(super) head: Vec<u8>,
    pub(super) children: Vec<Node>,
}

impl Node {
    pub(super) fn read(from: &mut impl BufRead) -> Node {
        let mut head = Vec::new();
        from.read_until(b'\n', &mut head).expect("a reply arrives");
        assert!(
            head.ends_with(b"\r\n"),
            "a truncated reply: {}",
            String::from_utf8_lossy(&head)
        );
        let len = || {
            String::from_utf8_lossy(&head[1..head.len() - 2])
                .parse::<i64>()
                .unwrap_or(0)
                .max(0)
        };
        let children = match head[0] {
            b'*' | b'~' | b'>' => len(),
            b'%' => len() * 2,
            b'$' | b'=' if head[1] != b'-' => {
                let mut body = vec![0; usize::try_from(len()).unwrap() + 2];
                from.read_exact(&mut body).expect("the rest arrives");
                head.extend(body);
                0
            }
            _ => 0,
        };
        Node {
            children: (0..children).map(|_| Node::read(from)).collect(),
            head,
        }
    }

    /// The content of a bulk string.
    pub(super) fn text(&self) -> Vec<u8> {
        let start = self.head.iter().position(|b| *b == b'\n').unwrap() + 1;
        self.head[start..self.head.len().max(start + 2) - 2].to_vec()
    }

    pub(super) fn number(&self) -> Option<i64> {
        let text = self.head.strip_prefix(b":")?;
        String::from_utf8_lossy(text).trim_end().parse().ok()
    }

    /// The same with children in order; `width` of them belong together.
    pub(super) fn sorted(mut self, width: usize) -> Node {
        let mut groups: Vec<Vec<Node>> =
            self.children.chunks(width).map(<[Node]>::to_vec).collect();
        groups.sort();
        self.children = groups.concat();
        self
    }

    /// The same with scores in one form. How redis-server happens to encode a set decides whether
    /// zero keeps its sign, and how `ZSCAN` (`rounded`) writes large integers.
    pub(super) fn with_plain_scores(mut self, rounded: bool) -> Node {
        let text = String::from_utf8_lossy(&self.head).into_owned();
        let content = text.split_once("\r\n").map_or("", |(_, rest)| rest);
        let number = text.strip_prefix(',').unwrap_or(content).trim_end();
        let score = number.parse::<f64>().ok();
        if let Some(score) = score.filter(|score| rounded || *score == 0.0) {
            self.head = format!("{}{:?}", char::from(self.head[0]), score + 0.0).into_bytes();
        }
        let children = self.children.into_iter();
        self.children = children
            .map(|child| child.with_plain_scores(rounded))
            .collect();
        self
    }

    /// Kinds and lengths without content.
    pub(super) fn shape(&self) -> (u8, usize, Vec<u8>) {
        (
            self.head[0],
            self.children.len(),
            self.children.iter().map(|child| child.head[0]).collect(),
        )
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.head.escape_ascii())?;
        self.children.iter().try_for_each(|child| child.fmt(f))
    }
}
