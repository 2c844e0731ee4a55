//! The HTTP server of the admin address and of the socket, which anybody who reaches the address may try to hold up.
//!
//! A connection carries one request. It has a time to send its head and a time for everything, and where there are many
//! connections, the oldest that has not asked to the end, or takes long over its answer, makes room for a new one: idle
//! and slow ones keep nobody out.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::metrics::AdminMetrics;

/// How many connections there are at most.
pub(super) const MOST_CONNECTIONS: usize = 64;
/// How long the head of a request may take.
const LONGEST_HEAD: Duration = Duration::from_secs(5);
/// How long a connection may live: a big table to a slow reader takes some seconds.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);
/// When accepting is tried again after it failed, as it does without free descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// What gives connections.
pub(super) trait Listen {
    /// Takes the next one.
    async fn accept(&self) -> io::Result<impl Stream>;
}

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

impl Listen for TcpListener {
    async fn accept(&self) -> io::Result<impl Stream> {
        Ok(TcpListener::accept(self).await?.0)
    }
}

impl Listen for UnixListener {
    async fn accept(&self) -> io::Result<impl Stream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// A connection that is being served.
struct Connection {
    task: AbortHandle,
    since: Instant,
    has_asked: Arc<AtomicBool>,
}

/// Answers requests, for ever.
pub(super) async fn serve(listener: impl Listen, router: Router, metrics: AdminMetrics) -> std::convert::Infallible {
    // The oldest first.
    let mut connections = VecDeque::<Connection>::new();
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            // It went before it was taken.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(_) => {
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.task.is_finished());
        if connections.len() >= MOST_CONNECTIONS {
            metrics.connection_closed();
            let idle = connections.iter().position(|connection| !connection.has_asked.load(Ordering::Relaxed));
            let slow = || connections.iter().position(|connection| connection.since.elapsed() >= LONGEST_HEAD);
            let Some(oldest) = idle.or_else(slow).and_then(|at| connections.remove(at)) else { continue };
            oldest.task.abort();
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(answer(stream, router.clone(), has_asked.clone())).abort_handle();
        connections.push_back(Connection { task, since: Instant::now(), has_asked });
        // Whoever asks at once has asked before the next one is let in.
        tokio::task::yield_now().await;
    }
}

async fn answer(stream: impl Stream, router: Router, has_asked: Arc<AtomicBool>) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let has_asked = has_asked.clone();
        router.call(request.map(|body| Question::new(body, has_asked)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(LONGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever is too slow, or goes, gets no answer; there is nobody to tell.
    let _ = timeout(LONGEST_REQUEST, connection).await;
}

/// The body of a request, which says when it has been read to the end.
struct Question {
    body: Incoming,
    has_asked: Arc<AtomicBool>,
}

impl Question {
    fn new(body: Incoming, has_asked: Arc<AtomicBool>) -> Question {
        let question = Question { body, has_asked };
        question.note_end();
        question
    }

    fn note_end(&self) {
        if self.body.is_end_stream() {
            self.has_asked.store(true, Ordering::Relaxed);
        }
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.note_end();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::extract::DefaultBodyLimit;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::watch;

    use super::*;
    use crate::admin::LONGEST_BODY;

    const GET: &[u8] = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";

    struct Server {
        address: SocketAddr,
        metrics: AdminMetrics,
        /// How many have asked for `/forever`.
        forever: watch::Receiver<usize>,
    }

    async fn server() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = AdminMetrics::default();
        let (asked, forever) = watch::channel(0);
        let wait_forever = async move || {
            asked.send_modify(|asked| *asked += 1);
            std::future::pending::<String>().await
        };
        let router = Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/forever", get(wait_forever))
            .route("/echo", post(async |body: String| body))
            .layer(DefaultBodyLimit::max(LONGEST_BODY));
        tokio::spawn(serve(listener, router, metrics.clone()));
        Server { address, metrics, forever }
    }

    /// What comes until the server closes the connection.
    async fn rest(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        // A connection that is reset has ended too.
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be closed by now.
        let _ = stream.write_all(request).await;
        rest(stream).await
    }

    #[tokio::test]
    async fn bodies_that_do_not_come_keep_nobody_out() {
        let Server { address, metrics, .. } = server().await;
        let mut slow = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await.unwrap();
            slow.push(stream);
        }
        assert!(ask(address, GET).await.ends_with("alive\n"));
        assert!(metrics.closed_connections() > 0);
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_out() {
        let Server { address, metrics, .. } = server().await;
        let mut idle = Vec::new();
        for n in 0..200 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
            }
            idle.push(stream);
        }
        let answer = ask(address, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("alive\n"), "{answer:?}");
        assert!(metrics.closed_connections() >= 200 - MOST_CONNECTIONS as u64);
        assert_eq!(rest(idle.swap_remove(0)).await, "", "the oldest one was closed");
    }

    #[tokio::test]
    async fn more_than_can_be_served_are_closed_at_once() {
        let Server { address, metrics, mut forever } = server().await;
        let mut served = Vec::new();
        for n in 1..=MOST_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /forever HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            served.push(stream);
            forever.wait_for(|asked| *asked == n).await.unwrap();
        }
        assert_eq!(ask(address, GET).await, "");
        assert_eq!(metrics.closed_connections(), 1);
        drop(served);
        let answered = async {
            while ask(address, GET).await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), answered).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_or_a_body_that_does_not_come_ends_the_connection() {
        let Server { address, .. } = server().await;
        assert_eq!(ask(address, b"GET /livez HT").await, "");
        assert_eq!(ask(address, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").await, "");
    }

    #[tokio::test]
    async fn a_body_has_a_limit() {
        let Server { address, .. } = server().await;
        let body = "x".repeat(LONGEST_BODY + 1);
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = ask(address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer:?}");
    }

    #[tokio::test]
    async fn a_connection_carries_one_request() {
        let Server { address, .. } = server().await;
        let answer = ask(address, &[GET, GET].concat()).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer:?}");
    }
}
