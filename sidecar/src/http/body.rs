//! Bodies: bounded before their bytes arrive, each by itself and all together (P9).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
    header::{HeaderValue, RETRY_AFTER},
};
use policy::ByteSize;

use super::problem::Problem;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Full<Bytes> {
    Full::new(bytes.into())
}

/// How much may be on its way in at a time.
pub(crate) struct Budget {
    /// Largest single body.
    max: u64,
    in_use: AtomicU64,
}

/// A body, and its share of the budget for as long as it is in memory.
pub(crate) struct Held<'b> {
    pub(crate) bytes: Bytes,
    _share: Share<'b>,
}

/// A share of the budget; given back when dropped.
struct Share<'b> {
    budget: &'b Budget,
    bytes: u64,
}

// === impl Budget ===

impl Budget {
    /// Bodies of at most `max` bytes, and no more than that for all that are on their way.
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self {
            max,
            in_use: AtomicU64::new(0),
        })
    }

    pub(crate) async fn read(&self, mut body: Incoming) -> Result<Held<'_>, Problem> {
        let announced = body.size_hint().lower();
        let mut share = Share {
            budget: self,
            bytes: 0,
        };
        share.grow(announced)?;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Problem::new(StatusCode::BAD_REQUEST, "the body broke off")
                    .detail(format!("{error}; send it again"))
            })?;
            if let Ok(data) = frame.into_data() {
                let len = (bytes.len() + data.len()) as u64;
                share.grow(len.saturating_sub(share.bytes))?;
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Held {
            bytes: bytes.freeze(),
            _share: share,
        })
    }
}

impl Share<'_> {
    fn grow(&mut self, by: u64) -> Result<(), Problem> {
        let Budget { max, in_use } = self.budget;
        let wanted = self.bytes.saturating_add(by);
        if wanted > *max {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the value is too large")
                .detail(format!(
                    "at most {} bytes are taken (sidecar.maxBulkSize); send a smaller value or raise the limit",
                    ByteSize(*max)
                )));
        }
        if in_use.fetch_add(by, Relaxed).saturating_add(by) > *max {
            in_use.fetch_sub(by, Relaxed);
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many values at a time")
                .detail("the values that are on their way fill the memory set aside for them; try again")
                .header(RETRY_AFTER, HeaderValue::from_static("1")));
        }
        self.bytes = wanted;
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.in_use.fetch_sub(self.bytes, Relaxed);
    }
}
