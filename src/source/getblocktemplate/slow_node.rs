//! Why a node does not answer: diagnosed by a small call on another connection.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::calls::request;
use super::limits::RESPONSE_BYTES;
use super::rpc::{Rpc, RpcError, peer_port};

/// A call that takes longer than this is slow.
const SLOW: Duration = Duration::from_secs(3);
/// How long each of the two steps of the diagnosis may take: less than five seconds in all.
const STEP: Duration = Duration::from_millis(900);

/// Waits until a call that starts now is slow, and returns a line with the likely cause. To be
/// dropped when the call is answered. `another` makes a client of the same node; it is called only
/// when the call is slow.
pub async fn diagnose(another: impl FnOnce() -> Rpc) -> String {
    sleep(SLOW).await;
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
    format!("no answer for {} s; {cause}", SLOW.as_secs())
}

/// Whether the node has an RPC thread to spare: any answer shows that.
async fn serves_a_small_call(rpc: &mut Rpc) -> bool {
    let call = request("getrpcinfo", "");
    let answer = timeout(STEP, rpc.call(call.into(), RESPONSE_BYTES, STEP)).await;
    !matches!(answer, Err(_) | Ok(Err(RpcError::Deadline(_) | RpcError::Connection(_))))
}
