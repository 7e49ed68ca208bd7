//! The query whose local answer is to be compared with Redis' answer to a question.

use smallvec::SmallVec;

use super::Question;
use crate::tier::Query;

impl Question {
    /// Runs `ask` with the query that asks the local tier the same.
    pub fn with_query<T>(&self, ask: impl FnOnce(Query<'_>) -> T) -> T {
        let names: SmallVec<[&[u8]; 8]>;
        ask(match self {
            Self::Value => Query::Get,
            Self::Length => Query::StrLen,
            Self::Type => Query::Type,
            Self::Field(field) => Query::HGet(field),
            Self::SomeFields(fields) => {
                names = fields.iter().map(|field| &**field).collect();
                Query::HMGet(&names)
            }
            Self::HasField(field) => Query::HExists(field),
            Self::FieldCount => Query::HLen,
            Self::Fields => Query::HGetAll,
            Self::Members => Query::SMembers,
            Self::HasMember(member) => Query::SIsMember(member),
            Self::MemberCount => Query::SCard,
            Self::ListRange(span) => Query::LRange(*span),
            Self::ListLength => Query::LLen,
            Self::SortedRange(span) => Query::ZRange(*span),
            Self::Score(member) => Query::ZScore(member),
            Self::SortedCount => Query::ZCard,
        })
    }

    /// Whether the answer depends on fields that may end on their own.
    pub const fn is_of_a_hash(&self) -> bool {
        matches!(
            self,
            Self::Field(_)
                | Self::SomeFields(_)
                | Self::HasField(_)
                | Self::FieldCount
                | Self::Fields
        )
    }
}
