//! Random commands in the forms of a group.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Words, words};

/// The random sequence.
pub(super) struct Commands {
    /// What commands are made of: `x...` repeats, a comma joins words that repeat together.
    forms: &'static [&'static str],
    seed: u64,
}

impl Commands {
    pub(super) const fn new(forms: &'static [&'static str], seed: u64) -> Self {
        Self { forms, seed }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).unwrap() % bound
    }

    /// From `-bound` to below `bound`.
    fn around(&mut self, bound: i64) -> i64 {
        i64::try_from(self.below(usize::try_from(bound * 2).unwrap())).unwrap() - bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    pub(super) fn next(&mut self) -> Words {
        let form = self.pick(self.forms);
        let mut command: Words = Vec::new();
        for word in form.split(' ') {
            if let Some(repeated) = word.strip_suffix("...") {
                for _ in 0..=self.below(3) {
                    command.extend(repeated.split(',').map(|word| self.fill(word)));
                }
            } else {
                command.push(self.fill(word));
            }
        }
        match self.below(40) {
            0 if command.len() > 1 => {
                command.pop();
            }
            // The last word of a blocking command is how long it waits.
            1 if command[0][0] != b'B' => command.push(self.fill("v")),
            2 => command[0].make_ascii_lowercase(),
            _ => {}
        }
        // `WITHSCORE` and its arity came after redis 7.0.
        if command[0].to_ascii_uppercase().ends_with(b"RANK") && command.len() > 3 {
            command.truncate(3);
        }
        // These would do something else without or with other arguments.
        if command[0].eq_ignore_ascii_case(b"SELECT")
            || command[0].eq_ignore_ascii_case(b"SWAPDB") && command.len() < 3
        {
            return words(&format!("SELECT {}", self.below(3)));
        }
        command
    }

    fn fill(&mut self, word: &str) -> Vec<u8> {
        let text = match word {
            "k" => return format!("key{}", self.below(9)).into_bytes(),
            "f" => return self.pick(&["f1", "f2", "f3", "f4", "", "7"]).into(),
            "db" => self.pick(&["0", "1", "2", "1", "2", "16", "-1", "x", "99999999999"]),
            "v" => match self.below(12) {
                0 => return vec![0, 255, b'\r', b'\n', 128],
                1 => return vec![b'z'; self.below(200)],
                2 | 3 => return self.around(1000).to_string().into_bytes(),
                _ => self.pick(VALUES),
            },
            "i" => match self.below(6) {
                0 => self.pick(ODD_INTEGERS),
                _ => return self.around(6).to_string().into_bytes(),
            },
            // Never a very negative count: Redis would answer with so many elements.
            "cnt" => self.pick(&[
                "0",
                "1",
                "2",
                "100",
                "-1",
                "-7",
                "x",
                "9223372036854775807",
                "-9223372036854775808",
                "4611686018427387904",
            ]),
            "fl" => self.pick(FLOATS),
            "o" => self.pick(&[
                "0",
                "1",
                "5",
                "20",
                "-1",
                "600000000",
                "9223372036854775807",
                "x",
                "3",
            ]),
            "b" => self.pick(&[
                "0",
                "1",
                "7",
                "9",
                "100",
                "-1",
                "4294967296",
                "9223372036854775807",
                "x",
                "33",
            ]),
            "bit" => self.pick(&["0", "1", "1", "2", "x"]),
            "sec" => return (100 + 20 * self.below(1_000_000)).to_string().into_bytes(),
            "ms" => {
                return ((100 + 20 * self.below(1_000_000)) * 1000)
                    .to_string()
                    .into_bytes();
            }
            "at" => {
                return (unix_seconds() + 100 + 20 * self.below(1_000_000) as u64)
                    .to_string()
                    .into_bytes();
            }
            "atms" => {
                return ((unix_seconds() + 100 + 20 * self.below(1_000_000) as u64) * 1000)
                    .to_string()
                    .into_bytes();
            }
            "odd" => self.pick(&[
                "0",
                "-1",
                "x",
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775",
                "1.5",
            ]),
            "cond" => self.pick(&["NX", "XX", "GT", "LT", "nx", "what"]),
            "end" => self.pick(&["LEFT", "RIGHT", "left", "LEFT", "RIGHT", "up"]),
            "glob" => self.pick(&[
                "*", "k*", "key[1-4]", "key?", "*[^3]", "f*", "nothing", "\\k*", "1*", "*e*5",
            ]),
            "type" => self.pick(&["string", "hash", "set", "list", "HASH", "zset"]),
            "id" | "end-id" | "new-id" | "timeout" | "trim" => return self.fill_stream(word),
            "n" => self.pick(&["1", "2", "5", "100", "0", "-1", "x"]),
            "c" => self.pick(&["0", "0", "0", "x", "-", ""]),
            other => return self.fill_sorted(other),
        };
        text.as_bytes().to_vec()
    }

    fn fill_stream(&mut self, word: &str) -> Vec<u8> {
        let text = match (word, self.below(8)) {
            ("trim", _) => self.pick(&["0", "1", "2", "3", "5", "-1", "x", "100"]),
            ("timeout", _) => self.pick(&["0.001", "0.001", "1e-3", "x", "-1", "", "nan", ".005"]),
            (_, 0) => self.pick(ODD_IDS),
            ("end-id", 1) => "-",
            ("end-id", 2) => "+",
            ("end-id", 3) => return format!("({}-{}", self.below(12), self.below(4)).into_bytes(),
            ("new-id", 1) => return format!("{}-*", self.below(40)).into_bytes(),
            ("new-id", _) => {
                return format!("{}-{}", self.below(40), self.below(4)).into_bytes();
            }
            (_, 4) => return self.below(12).to_string().into_bytes(),
            _ => return format!("{}-{}", self.below(40), self.below(4)).into_bytes(),
        };
        text.as_bytes().to_vec()
    }

    fn fill_sorted(&mut self, word: &str) -> Vec<u8> {
        let text = match word {
            "zopt" => self.pick(&["NX", "XX", "GT", "LT", "CH", "gt", "INCR"]),
            "agg" => self.pick(&["SUM", "MIN", "MAX", "sum", "AVG"]),
            "lex" => self.pick(&["lex1", "lex2"]),
            "sc" => match self.below(4) {
                0 => self.pick(ODD_SCORES),
                _ => return self.around(5).to_string().into_bytes(),
            },
            "sb" => match self.below(4) {
                0 => self.pick(SCORE_BOUNDS),
                1 => return format!("({}", self.around(5)).into_bytes(),
                _ => return self.around(5).to_string().into_bytes(),
            },
            "lb" => self.pick(&[
                "-", "+", "[a", "(a", "[b", "(c", "[", "(", "[z", "(1", "[3", "x", "", "-a",
                "[hello",
            ]),
            other => other,
        };
        text.as_bytes().to_vec()
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

const VALUES: &[&str] = &[
    "a",
    "b",
    "c",
    "",
    "hello world",
    "1",
    "2",
    "3",
    "10",
    "-5",
    "007",
    "+1",
    " 1",
    "1 ",
    "-0",
    "0",
    "1.5",
    "3.0e3",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "inf",
];
const ODD_INTEGERS: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "x",
    "",
    "1.0",
    "01",
    "-0",
    "4611686018427387904",
    "2147483648",
    "-9223372036854775807",
];
const ODD_SCORES: &[&str] = &[
    "0.1",
    "0.2",
    "-0",
    "inf",
    "-inf",
    "+inf",
    "1e17",
    "1.5",
    "3.0e3",
    "1e-5",
    "x",
    "",
    " 1",
    "1 ",
    "nan",
    "1e400",
    "1e-400",
    "1e308",
    "-1e308",
    "123456789012345678",
    "0.30000000000000004",
    ".5",
    "5.",
    "infinity",
    "1e300",
    "-2.5",
    "12345.678",
    "1e16",
    "0e-400",
    "4.9e-324",
];
const SCORE_BOUNDS: &[&str] = &[
    "-inf", "+inf", "inf", "(inf", "(-inf", "x", "", "(", "1e400", " 1", "1 ", "nan", "0.1",
    "(0.1", "-0", "1.5", "((1", "0.5", "-inf", "+inf", "-inf", "+inf",
];
const ODD_IDS: &[&str] = &[
    "0",
    "0-0",
    "-",
    "+",
    "x",
    "",
    "1-",
    "-1",
    "1-x",
    "0-*",
    "5-*",
    " 3-1",
    "007-01",
    "+2-0",
    "1-1-1",
    "18446744073709551615-18446744073709551615",
    "18446744073709551616-0",
    "(",
    "(1-1",
    "1--1",
    "$",
    ">",
    "*-1",
    "18446744073709551615",
];
const FLOATS: &[&str] = &[
    "0.1",
    "0.2",
    "1",
    "-1.5",
    "3.0e3",
    "1e-5",
    "-0.3",
    "100.25",
    "x",
    "",
    " 1",
    "1 ",
    "nan",
    "inf",
    "-inf",
    "+2",
    ".5",
    "5.",
    "12345678901234567890.5",
    "0.00000000000000001",
    "1e17",
    "-1e17",
    "5e-18",
    "1e3.5",
    "1e5000",
];
