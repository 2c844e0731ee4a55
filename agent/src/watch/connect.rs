//! The HTTP client, made so that a connection that went silent is noticed.
//!
//! A connection into a black hole (a cable, a firewall that forgot it, a load balancer that was replaced) gets no
//! answer, not even a reset, and a watch that waits on it would wait for minutes. What notices it:
//!
//! - **HTTP/2 pings**, as client-go does it: every 10 s, to be answered within 10 s, or the connection is closed and
//!   leaves the pool, so that no later request is given to it. A ping is answered by the server's HTTP layer, so it also
//!   finds a server that is frozen, and one that is dead behind a balancer of TCP connections that lives, neither of
//!   which TCP's own means do. It is a frame of 17 bytes that no handler, audit log or queue of the API server sees;
//!   and since all watches share one connection, 5,000 nodes cost the server 500 such frames a second in all.
//! - **TCP keep-alive and `TCP_USER_TIMEOUT`** for what is not HTTP/2, and for the begin of a connection.
//! - Over **HTTP/1.1**, as `kubectl proxy` speaks it, nothing answers a ping. There a watch is asked to end in good
//!   order after 15 to 20 s, and one that has not ended 5 s later is given up. This costs requests, so it is not done
//!   where pings are.
//!
//! kube's own client speaks HTTP/1.1 only, with a connection for each watch, which is why this one is put together anew,
//! of the same parts.

use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// After how long without life a connection is closed: the interval of pings, and the time to answer one.
pub(super) const LIVENESS: Duration = Duration::from_secs(20);
/// How long a connection may take to begin, with its TLS handshake.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Makes a client.
pub(super) fn connect(config: &Config) -> Result<Client, BoxError> {
    if config.proxy_url.is_some() {
        // kube knows which proxies it was built for, and says so.
        return Ok(Client::try_from(config.clone())?);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(LIVENESS / 2));
    tcp.set_keepalive_interval(Some(LIVENESS / 4));
    tcp.set_keepalive_retries(Some(2));
    tcp.set_tcp_user_timeout(Some(LIVENESS));
    let mut tls = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = &config.tls_server_name {
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name.clone().try_into()?));
    }
    let mut connector = TimeoutConnector::new(tls.enable_all_versions().wrap_connector(tcp));
    connector.set_connect_timeout(Some(CONNECT_PATIENCE));
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(LIVENESS)
        .http2_keep_alive_interval(LIVENESS / 2)
        .http2_keep_alive_timeout(LIVENESS / 2)
        .http2_keep_alive_while_idle(true)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
