//! Why a node does not answer: found out by a small call on another connection.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::RESPONSE_BYTES;
use super::client::request;
use super::rpc::{Rpc, RpcError, peer_port};

/// A call that has taken this long has stalled.
const STALLED: Duration = Duration::from_secs(3);
/// How long finding out why may take, for each of its two steps: in all less than five seconds.
const STEP: Duration = Duration::from_millis(900);

/// WaitPolicy until a call has stalled that begins now, and says so with the likely cause. To be dropped
/// when the call is answered. `another` is called only then, for a client of the same node.
pub async fn diagnose(another: impl FnOnce() -> Rpc) -> String {
    sleep(STALLED).await;
    let mut rpc = another();
    let connecting = TcpStream::connect((rpc.endpoint().host.as_str(), rpc.endpoint().port));
    let connected = timeout(STEP, connecting).await.is_ok_and(|stream| stream.is_ok());
    let other_port = peer_port(rpc.endpoint().port);
    let cause = if !connected {
        "no connection can be made: the network, a firewall, or the node has stopped"
    } else if let Some(other_port) = &other_port {
        other_port
    } else if serves_a_small_call(&mut rpc).await {
        "its RPC answers other calls, so it is busy with its chain: initial block download, \
         reindexing, or checking a block"
    } else {
        "all its RPC threads are busy with other calls (-rpcthreads, -rpcworkqueue), such as the \
         longpolls of other clients, or the node hangs"
    };
    format!("no answer for {} s; {cause}", STALLED.as_secs())
}

/// Whether the node has an RPC thread to spare: any answer shows that.
async fn serves_a_small_call(rpc: &mut Rpc) -> bool {
    let call = request("getrpcinfo", "");
    let answer = timeout(STEP, rpc.call(call.into(), RESPONSE_BYTES, STEP)).await;
    !matches!(answer, Err(_) | Ok(Err(RpcError::Deadline(_) | RpcError::Connection(_))))
}
