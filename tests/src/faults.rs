//! What can go wrong between a component and the API server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::{Status, status::GroupResource};
use axum::{Router, body::Body, response::Response};
use clock::Chance;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, Request, header};
use kube::Client;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt};

/// Until a lost request or answer is given up.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest that a request is on its way, in milliseconds.
const DELAY_MAX_MS: usize = 800;
/// The longest that a watch lives, in milliseconds.
const WATCH_MAX_MS: usize = 20_000;

/// One fault of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The server fails before it does anything.
    Refused,
    /// The request never arrives.
    RequestLost,
    /// The request is done, and the answer never arrives.
    AnswerLost,
    /// The request is done, and the answer says that it failed.
    AnswerFails,
    /// Somebody else wrote first.
    Conflict,
}

/// A switch for faults, with a seed; clones share both.
#[derive(Clone, Debug)]
pub struct Faults {
    chance: Chance,
    active: Arc<AtomicBool>,
    injected: Arc<AtomicUsize>,
}

impl Faults {
    /// Inactive at first.
    pub fn seeded(seed: u64) -> Self {
        Self { chance: Chance::seeded(seed), active: Arc::default(), injected: Arc::default() }
    }

    /// From now on requests fail.
    pub fn begin(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// From now on requests work.
    pub fn heal(&self) {
        self.active.store(false, Ordering::Relaxed);
    }

    /// How many requests have failed so far.
    pub fn injected(&self) -> usize {
        self.injected.load(Ordering::Relaxed)
    }

    /// A client through the faults. It is cut off for good when its component is `dead`.
    pub fn client(&self, router: Router, dead: CancellationToken) -> Client {
        let faults = self.clone();
        client::config::in_process(tower::service_fn(move |request: Request<kube::client::Body>| {
            let (faults, router, dead) = (faults.clone(), router.clone(), dead.clone());
            async move {
                if dead.is_cancelled() {
                    return Err(BoxError::from("connection refused"));
                }
                faults.call(router, request).await
            }
        }))
    }

    async fn call(&self, router: Router, request: Request<kube::client::Body>) -> Result<Response, BoxError> {
        if !self.active.load(Ordering::Relaxed) {
            return Ok(router.oneshot(request).await?);
        }
        let fault = self.draw(request.method());
        self.injected.fetch_add(usize::from(fault != Fault::None), Ordering::Relaxed);
        tokio::time::sleep(self.milliseconds(DELAY_MAX_MS)).await;
        match fault {
            Fault::Refused => return Ok(answer(&Status::internal("injected: refused"))),
            Fault::Conflict => return Ok(answer(&conflict())),
            Fault::RequestLost => return lost().await,
            Fault::None | Fault::AnswerLost | Fault::AnswerFails => {}
        }
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let response = router.oneshot(request).await?;
        match fault {
            Fault::AnswerLost => lost().await,
            Fault::AnswerFails => Ok(answer(&Status::internal("injected: failed afterwards"))),
            _ if is_watch => Ok(self.cut(response)),
            _ => Ok(response),
        }
    }

    fn draw(&self, method: &Method) -> Fault {
        match self.chance.below(100) {
            0..=4 => Fault::Refused,
            5..=7 => Fault::RequestLost,
            8..=12 => Fault::AnswerLost,
            13..=15 => Fault::AnswerFails,
            16..=20 if matches!(*method, Method::PUT | Method::PATCH) => Fault::Conflict,
            _ => Fault::None,
        }
    }

    fn milliseconds(&self, bound: usize) -> Duration {
        Duration::from_millis(self.chance.below(bound) as u64)
    }

    /// The watch breaks in the middle: between two events, or within one.
    fn cut(&self, response: Response) -> Response {
        let (end, torn) = (tokio::time::sleep(self.milliseconds(WATCH_MAX_MS)), self.chance.below(2) == 0);
        let (parts, body) = response.into_parts();
        let events = body.into_data_stream().map_err(BoxError::from).take_until(end);
        let rest = torn.then(|| Err(BoxError::from("injected: the watch broke")));
        Response::from_parts(parts, Body::from_stream(events.chain(stream::iter(rest))))
    }
}

async fn lost() -> Result<Response, BoxError> {
    tokio::time::sleep(TIMEOUT).await;
    Err("injected: timed out".into())
}

fn conflict() -> Status {
    Status::conflict(GroupResource { group: "", resource: "objects" }, "injected", "somebody else wrote first")
}

fn answer(status: &Status) -> Response {
    Response::builder()
        .status(status.code)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(status.to_value().to_string()))
        .expect("constants make a response")
}
