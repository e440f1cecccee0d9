//! The page for whoever runs the tracker, beside the metrics. It shows what the metrics say and nothing else, so whoever
//! may not read them learns nothing from it, and it names no user, group or file.
//!
//! - here: [`Page`], which remembers the metrics of the last minutes.
//! - `numbers`: the values in a text of metrics; `figures`: what follows from two of them. Both are pure.
//! - `view`: from figures to HTML. Pure.

mod figures;
mod numbers;
mod view;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::time::Instant;
use transport::Scraped;

use self::{
    figures::Figures,
    numbers::{Numbers, Sample},
};
use crate::metrics::Metrics;

/// The number of samples that are kept: those of five minutes, one each 15 seconds.
const SAMPLES: usize = 21;

/// The page. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Page {
    metrics: Metrics,
    started: Instant,
    samples: Arc<Mutex<VecDeque<Sample>>>,
}

impl Page {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics, started: Instant::now(), samples: Arc::default() }
    }

    /// Remembers the metrics as they are now.
    pub(crate) fn sample(&self) {
        let sample = self.now();
        let mut samples = self.samples.lock();
        if samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn now(&self) -> Sample {
        (self.started.elapsed(), Numbers::read(&self.metrics.render()))
    }

    /// What is at a path of the metrics' address.
    pub(crate) fn find(&self, path: &str) -> Option<Scraped> {
        let text = |kind, body: &str| Some(Scraped { kind, body: body.to_owned() });
        match path {
            "/metrics" => Some(Scraped::metrics(self.metrics.render())),
            "/" => {
                let (mut samples, now) = (self.samples.lock(), self.now());
                let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let body = view::page(&Figures::new(samples.make_contiguous(), &now, clock)).into_string();
                Some(Scraped { kind: "text/html; charset=utf-8", body })
            }
            "/page.css" => text("text/css; charset=utf-8", include_str!("page/assets/page.css")),
            "/page.js" => text("text/javascript; charset=utf-8", include_str!("page/assets/page.js")),
            "/favicon.ico" => text("image/x-icon", ""),
            _ => None,
        }
    }
}
