//! The body of an answer, as lines or as a whole, with bounds on length and silence.

use http_body_util::BodyExt;
use kube::client::Body;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::request::PATIENCE;

/// How long a line may be. An object of the API has at most 1.5 MiB in etcd, and is not much larger as JSON.
pub(super) const LONGEST_LINE: usize = 8 * 1024 * 1024;

/// The bytes of an answer.
pub(super) struct Bytes {
    body: Body,
    /// What has come of the line that is read.
    line: Vec<u8>,
    /// What of `line` holds no end of line.
    searched: usize,
    /// When the line that is read began.
    begun: Option<Instant>,
    /// Whether the line is too long, and is passed over.
    is_too_long: bool,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line.
    Text(Vec<u8>),
    /// A line that is longer than [`LONGEST_LINE`], which was passed over.
    TooLong,
    /// The body has ended in good order.
    End,
    /// Nothing until then.
    Nothing,
}

// === impl Bytes ===

impl Bytes {
    pub(super) fn new(body: Body) -> Bytes {
        Bytes { body, line: Vec::new(), searched: 0, begun: None, is_too_long: false }
    }

    /// The next line that is not empty. One that has begun is waited for no longer than [`PATIENCE`].
    pub(super) async fn line(&mut self, until: Instant) -> Result<Line, Failure> {
        loop {
            match self.next_line() {
                Some(Line::Text(text)) if text.iter().all(u8::is_ascii_whitespace) => continue,
                Some(line) => return Ok(line),
                None => {}
            }
            let rest = self.begun.map(|begun| begun + PATIENCE);
            let Ok(frame) = timeout_at(rest.map_or(until, |rest| rest.min(until)), self.body.frame()).await else {
                if rest.is_some_and(|rest| rest <= Instant::now()) {
                    return Err(Failure::Silent { waited_for: "end of a line", time: PATIENCE });
                }
                return Ok(Line::Nothing);
            };
            match frame {
                None if self.begun.is_none() => return Ok(Line::End),
                None => return Err(Failure::Broken("the connection ended in the middle of a line".to_owned())),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(|error| Failure::broken(&error))?.into_data()
                        && !data.is_empty()
                    {
                        self.line.extend_from_slice(&data);
                        self.begun.get_or_insert_with(Instant::now);
                    }
                }
            }
        }
    }

    /// Takes a line out of what has come.
    fn next_line(&mut self) -> Option<Line> {
        let end = self.line[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| at + self.searched);
        let Some(end) = end else {
            self.searched = self.line.len();
            if self.searched > LONGEST_LINE {
                // What is passed over is not kept.
                self.is_too_long = true;
                (self.line, self.searched) = (Vec::new(), 0);
            }
            return None;
        };
        let rest = self.line.split_off(end + 1);
        let text = std::mem::replace(&mut self.line, rest);
        self.searched = 0;
        self.begun = (!self.line.is_empty()).then(Instant::now);
        let is_too_long = std::mem::take(&mut self.is_too_long) || text.len() > LONGEST_LINE;
        Some(if is_too_long { Line::TooLong } else { Line::Text(text) })
    }

    /// All of the body, each piece of which may take as long as [`PATIENCE`] allows.
    pub(super) async fn all(&mut self, longest: usize) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        loop {
            let Ok(frame) = timeout_at(Instant::now() + PATIENCE, self.body.frame()).await else {
                return Err(Failure::Silent { waited_for: "more of a list", time: PATIENCE });
            };
            let Some(frame) = frame else { return Ok(all) };
            if let Ok(data) = frame.map_err(|error| Failure::broken(&error))?.into_data() {
                if all.len() + data.len() > longest {
                    return Err(Failure::Odd(format!("an answer of more than {longest} bytes")));
                }
                all.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures::{StreamExt, stream};
    use http::{Request, Response};
    use kube::Client;

    use super::*;

    /// A body of these pieces, which then ends or says nothing more, as a client hands it out.
    async fn bytes(pieces: Vec<&'static [u8]>, ends: bool) -> Bytes {
        let pieces = stream::iter(pieces).map(Ok::<_, Infallible>);
        let rest = if ends { stream::empty().left_stream() } else { stream::pending().right_stream() };
        let mut answer = Some(Response::new(axum::body::Body::from_stream(pieces.chain(rest))));
        let server = tower::service_fn(move |_: Request<Body>| {
            std::future::ready(Ok::<_, Infallible>(answer.take().expect("there is one request")))
        });
        let answer = Client::new(server, "default").send(Request::new(Body::empty())).await;
        Bytes::new(answer.unwrap().into_body())
    }

    async fn line(bytes: &mut Bytes) -> Line {
        bytes.line(Instant::now() + PATIENCE * 2).await.unwrap()
    }

    fn text(text: &str) -> Line {
        Line::Text(text.into())
    }

    #[tokio::test]
    async fn lines_are_put_together_from_pieces() {
        let mut bytes = bytes(vec![b"a\nb", b"c\n\n", b"\r\nd\n"], true).await;
        assert_eq!(line(&mut bytes).await, text("a\n"));
        assert_eq!(line(&mut bytes).await, text("bc\n"));
        assert_eq!(line(&mut bytes).await, text("d\n"));
        assert_eq!(line(&mut bytes).await, Line::End);
    }

    #[tokio::test]
    async fn a_line_that_is_cut_is_no_line() {
        let failure = bytes(vec![b"{\"type\""], true).await.line(Instant::now() + PATIENCE).await.unwrap_err();
        assert!(failure.describe().contains("middle of a line"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over() {
        let mebibyte: &'static [u8] = &*Box::leak(vec![b'x'; 1 << 20].into_boxed_slice());
        let mut pieces = vec![mebibyte; 12];
        pieces.extend([b"x\n".as_slice(), b"short\n"]);
        let mut bytes = bytes(pieces, true).await;
        assert_eq!(line(&mut bytes).await, Line::TooLong);
        assert_eq!(line(&mut bytes).await, text("short\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_lines_is_nothing_and_within_one_a_failure() {
        let mut idle = bytes(vec![b"a\n"], false).await;
        assert_eq!(line(&mut idle).await, text("a\n"));
        assert_eq!(line(&mut idle).await, Line::Nothing);
        let mut cut = bytes(vec![b"{"], false).await;
        let begun = Instant::now();
        let failure = cut.line(begun + Duration::from_secs(300)).await.unwrap_err();
        assert!(matches!(failure, Failure::Silent { .. }), "{failure:?}");
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
