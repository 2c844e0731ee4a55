use std::fs;

use axum::Router;
use axum::http::HeaderMap;
use http::Request;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

/// A server that answers with the credentials that it is shown, and its address.
async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shown = |headers: HeaderMap| async move { format!("{:?}", headers.get("authorization")) };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(shown)).await });
    address
}

/// A kubeconfig for a server at this address and this user, in JSON.
fn kubeconfig(address: &str, user: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         clusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}], users: [{{name: u, user: {user}}}]}}"
    )
}

/// What the server sees of the credentials of the next request.
async fn credentials(seat: &Seat) -> String {
    let client = seat.client(false).await.unwrap();
    client.request_text(Request::get("/").body(Vec::new()).unwrap()).await.unwrap()
}

/// A folder with a kubeconfig, and the credential plugin that it names: it answers once its answer is there.
struct Plugin(TempDir);

impl Plugin {
    /// It ends by itself after half a minute, or when the folder is gone.
    const SCRIPT: &str = r#"
        echo started >>"$1/starts"
        left=600
        until [ -e "$1/answer" ] || [ ! -d "$1" ] || [ $left = 0 ]; do sleep 0.05; left=$((left - 1)); done
        cat "$1/answer"
    "#;

    fn new(address: &str) -> Plugin {
        let folder = tempfile::tempdir().unwrap();
        let user = format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, \
             args: [-c, {script:?}, sh, {folder:?}]}}}}",
            script = Plugin::SCRIPT,
            folder = folder.path()
        );
        fs::write(folder.path().join("config"), kubeconfig(address, &user)).unwrap();
        fs::write(folder.path().join("starts"), "").unwrap();
        Plugin(folder)
    }

    async fn access(&self, patience: Patience) -> Result<Access> {
        Access::new(Origin::Kubeconfig(self.0.path().join("config")), patience).await
    }

    fn answers(&self, token: &str) {
        let answer = format!(
            r#"{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {{"token": "{token}"}}}}"#
        );
        let (written, place) = (self.0.path().join("new"), self.0.path().join("answer"));
        fs::write(&written, answer).unwrap();
        fs::rename(written, place).unwrap();
    }

    fn hangs(&self) {
        fs::remove_file(self.0.path().join("answer")).unwrap();
    }

    /// Makes its kubeconfig another, of the same meaning.
    fn is_touched(&self) {
        let config = fs::read_to_string(self.0.path().join("config")).unwrap();
        self.is_replaced_by(&(config + "\n"));
    }

    fn is_replaced_by(&self, config: &str) {
        fs::write(self.0.path().join("config"), config).unwrap();
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.0.path().join("starts")).unwrap().lines().count()
    }
}

#[tokio::test]
async fn credentials_that_change_are_used_from_the_next_request_on() {
    let address = server().await;
    let folder = tempfile::tempdir().unwrap();
    let (config, token) = (folder.path().join("config"), folder.path().join("token"));
    let whole = kubeconfig(&address, "{tokenFile: token}");
    fs::write(&token, "one").unwrap();
    fs::write(&config, &whole).unwrap();
    let patience = Patience { first: LONG, other: LONG };
    let seat = Access::new(Origin::Kubeconfig(config.clone()), patience).await.unwrap().seat();
    assert!(credentials(&seat).await.contains("Bearer one"));
    fs::write(&token, "two").unwrap();
    assert!(credentials(&seat).await.contains("Bearer two"));
    fs::write(&config, "{half").unwrap();
    assert!(credentials(&seat).await.contains("Bearer two"), "what cannot be used changes nothing");
    fs::write(&token, "three").unwrap();
    fs::write(&config, whole).unwrap();
    assert!(credentials(&seat).await.contains("Bearer three"), "and is used when it is whole");
}

#[tokio::test]
async fn a_plugin_that_hangs_is_named_at_the_start() {
    let plugin = Plugin::new("localhost");
    let patience = Patience { first: Duration::from_secs(1), other: LONG };
    let error = plugin.access(patience).await.err().unwrap();
    assert_eq!(error.to_string(), "credential plugin sh does not answer");
}

#[tokio::test]
async fn a_plugin_that_hangs_is_started_once_and_holds_up_nobody() {
    let address = server().await;
    let plugin = Plugin::new(&address);
    plugin.answers("one");
    let access = plugin.access(Patience { first: LONG, other: SHORT }).await.unwrap();
    let seat = access.seat();
    assert!(credentials(&seat).await.contains("Bearer one"));

    plugin.hangs();
    let starts = plugin.starts();
    for _ in 0..5 {
        plugin.is_touched();
        assert!(credentials(&seat).await.contains("Bearer one"), "the last client is used on");
    }
    let _others: Vec<Seat> = (1..SHARE).map(|_| access.seat()).collect();
    let newcomer = access.seat();
    tokio::select! {
        biased;
        _ = newcomer.client(false) => panic!("there is no client for another connection"),
        shown = credentials(&seat) => assert!(shown.contains("Bearer one")),
    }
    assert!(plugin.starts() <= starts + 1, "one plugin hangs, not {}", plugin.starts() - starts);

    plugin.is_replaced_by(&kubeconfig(&address, "{token: three}"));
    plugin.answers("two");
    assert!(credentials(&newcomer).await.contains("Bearer three"), "the files as they are now come after those before");
    assert!(credentials(&seat).await.contains("Bearer three"), "what changed is used by all");
}

#[tokio::test]
async fn a_late_answer_is_used() {
    let plugin = Plugin::new(&server().await);
    plugin.answers("one");
    let seat = plugin.access(Patience { first: LONG, other: SHORT }).await.unwrap().seat();
    // kube runs the plugin more than once for a client.
    let starts = plugin.starts();
    plugin.hangs();
    plugin.is_touched();
    assert!(credentials(&seat).await.contains("Bearer one"));
    plugin.answers("two");
    let used = async {
        while credentials(&seat).await.contains("Bearer one") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, used).await.unwrap();
    assert!(credentials(&seat).await.contains("Bearer two"));
    assert_eq!(plugin.starts(), 2 * starts, "it is not asked again");
}
