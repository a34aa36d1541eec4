//! A real bitcoind of its own for a test: loopback only, no peers, gone when the test is.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::block::{self, Output, Transaction};
use super::rpc::{RpcClient, RpcError};
use super::{poll, tool};

const START_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    Main,
    Testnet4,
    Signet,
    Regtest,
}

impl Chain {
    fn argument(self) -> &'static str {
        match self {
            Self::Main => "-chain=main",
            Self::Testnet4 => "-chain=testnet4",
            Self::Signet => "-chain=signet",
            Self::Regtest => "-chain=regtest",
        }
    }

    /// The chain's folder in a data directory.
    fn folder(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }
}

/// The program: `BITCOIND_EXE`, the PATH, or what `tests/tools/get-bitcoind` has brought.
pub fn bitcoind() -> PathBuf {
    tool::find("BITCOIND_EXE", "bitcoind", "bitcoin")
}

pub struct NodeBuilder {
    chain: Chain,
    arguments: Vec<String>,
    password: Option<(String, String)>,
}

impl NodeBuilder {
    /// One more argument of bitcoind, such as `-blockmaxweight=4000000`.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A user and password instead of the cookie file.
    pub fn password(mut self, user: &str, password: &str) -> Self {
        self.password = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Starts the node and waits until it answers.
    pub fn start(self) -> Node {
        let folder = TempDir::with_prefix("adit-node-").expect("a temporary folder");
        let mut failure = String::new();
        // A port that was free a moment ago may be taken meanwhile.
        for _ in 0..5 {
            let mut node = Node {
                chain: self.chain,
                port: free_port(),
                arguments: self.arguments.clone(),
                password: self.password.clone(),
                child: None,
                rpc: None,
                folder: None,
                path: folder.path().to_owned(),
            };
            match node.launch() {
                Ok(()) => {
                    node.folder = Some(folder);
                    return node;
                }
                Err(what) if what.contains("Unable to start HTTP server") => failure = what,
                Err(what) => panic!("bitcoind does not start: {what}"),
            }
        }
        panic!("bitcoind finds no free port: {failure}");
    }
}

pub struct Node {
    chain: Chain,
    port: u16,
    arguments: Vec<String>,
    password: Option<(String, String)>,
    child: Option<Child>,
    rpc: Option<RpcClient>,
    folder: Option<TempDir>,
    path: PathBuf,
}

impl Node {
    pub fn start(chain: Chain, arguments: &[&str]) -> Self {
        let builder = Self::builder(chain);
        arguments.iter().fold(builder, |builder, argument| builder.arg(*argument)).start()
    }

    pub fn builder(chain: Chain) -> NodeBuilder {
        NodeBuilder { chain, arguments: Vec::new(), password: None }
    }

    /// Starts the program on this node's port and folder, and waits until it answers.
    fn launch(&mut self) -> Result<(), String> {
        self.spawn();
        let last = std::cell::RefCell::new(String::new());
        let ready = poll(START_TIMEOUT, || match self.exited() {
            Some(status) => Some(Err(format!("it ended with {status}\n{}", self.output()))),
            None => match self.connect().and_then(|mut rpc| rpc.call("getblockcount", json!([]))) {
                Ok(_) => Some(Ok(())),
                Err(error) => {
                    *last.borrow_mut() = error.to_string();
                    None
                }
            },
        });
        match ready {
            Some(Ok(())) => {
                self.rpc = self.connect().ok();
                Ok(())
            }
            Some(Err(what)) => {
                self.child = None;
                Err(what)
            }
            None => {
                self.kill_hard();
                Err(format!("no answer in time: {}\n{}", last.borrow(), self.output()))
            }
        }
    }

    /// Starts the program and does not wait: it may still answer -28, or refuse connections.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node is running already");
        self.rpc = None;
        // A cookie that a killed node has left behind opens nothing.
        let _ = fs::remove_file(self.cookie_file());
        let output = File::create(self.output_file()).expect("a file for the node's output");
        let mut command = Command::new(bitcoind());
        command
            .arg(self.chain.argument())
            .arg(format!("-datadir={}", self.path.display()))
            .arg(format!("-rpcport={}", self.port))
            .args([
                "-conf=/dev/null",
                "-server=1",
                "-listen=0",
                "-connect=0",
                "-dnsseed=0",
                "-fixedseeds=0",
                "-disablewallet=1",
                "-checkblockindex=0",
                "-checkmempool=0",
                "-acceptnonstdtxn=1",
                "-printtoconsole=0",
                "-dbcache=32",
            ])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output);
        if let Some((user, password)) = &self.password {
            command.arg(format!("-rpcuser={user}")).arg(format!("-rpcpassword={password}"));
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", bitcoind().display()));
        self.child = Some(child);
    }

    fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.child.as_mut()?.try_wait().expect("the child can be asked")
    }

    fn output_file(&self) -> PathBuf {
        self.path.join("output.txt")
    }

    fn output(&self) -> String {
        fs::read_to_string(self.output_file()).unwrap_or_default()
    }

    /// A connection of its own, with this node's credentials.
    pub fn connect(&self) -> Result<RpcClient, RpcError> {
        Ok(RpcClient::new(self.address(), Some(&self.credentials()?)))
    }

    /// `user:password`: the cookie's text, or what the node was started with.
    pub fn credentials(&self) -> Result<String, RpcError> {
        match &self.password {
            Some((user, password)) => Ok(format!("{user}:{password}")),
            None => Ok(fs::read_to_string(self.cookie_file())?.trim().to_owned()),
        }
    }

    pub fn cookie(&self) -> String {
        self.credentials().expect("the node's cookie")
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`, without credentials.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn url_with_password(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@{}", self.address())
    }

    pub fn datadir(&self) -> &Path {
        &self.path
    }

    /// The chain's own folder inside [`datadir`](Self::datadir).
    pub fn chain_folder(&self) -> PathBuf {
        self.path.join(self.chain.folder())
    }

    pub fn cookie_file(&self) -> PathBuf {
        self.chain_folder().join(".cookie")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node is running").id()
    }

    /// SIGKILL, as a crash or a power cut would end it.
    pub fn kill_hard(&mut self) {
        self.rpc = None;
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the node to stop, and waits until it has.
    pub fn stop(&mut self) {
        let _ = self.rpc("stop", json!([]));
        let ended = poll(Duration::from_secs(60), || self.exited());
        self.kill_hard();
        assert!(ended.is_some(), "bitcoind did not stop in time");
    }

    /// Starts again on the same port and folder, whether it was stopped, killed or is running.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
        if let Err(what) = self.launch() {
            panic!("bitcoind does not start again: {what}");
        }
    }

    pub fn rpc(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        if self.rpc.is_none() {
            self.rpc = Some(self.connect()?);
        }
        self.rpc.as_mut().expect("just connected").call(method, params)
    }

    /// A call that a test takes for granted.
    pub fn must(&mut self, method: &str, params: Value) -> Value {
        self.rpc(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub fn template(&mut self) -> Value {
        self.must("getblocktemplate", json!([{"rules": ["segwit", "signet"]}]))
    }

    pub fn height(&mut self) -> u64 {
        self.must("getblockcount", json!([])).as_u64().expect("a height")
    }

    pub fn best_hash(&mut self) -> String {
        text(&self.must("getbestblockhash", json!([])))
    }

    pub fn hash_at(&mut self, height: u64) -> String {
        text(&self.must("getblockhash", json!([height])))
    }

    /// The block with its transactions, as `getblock` tells it.
    pub fn block(&mut self, hash: &str) -> Value {
        self.must("getblock", json!([hash, 2]))
    }

    pub fn wait_for_height(&mut self, height: u64, timeout: Duration) {
        let reached = poll(timeout, || (self.height() >= height).then_some(()));
        assert!(reached.is_some(), "height {} instead of {height} in {timeout:?}", self.height());
    }

    /// Blocks of the node's own making, paid to [`block::anyone_can_spend`]; their hashes.
    pub fn generate(&mut self, count: u64) -> Vec<String> {
        let descriptor = format!("raw({})", hex::encode(block::anyone_can_spend()));
        let hashes = self.must("generatetodescriptor", json!([count, descriptor]));
        hashes.as_array().expect("a list of hashes").iter().map(text).collect()
    }

    /// Puts `count` valid transactions of `virtual_size` each (96, or 106 to 2,096) into an otherwise
    /// empty mempool on regtest. Mines a hundred blocks or so on the way.
    pub fn fill_mempool(&mut self, count: usize, virtual_size: usize) {
        const OUTPUTS: usize = 2000;
        const FEE_RATE: u64 = 20;
        let fee = FEE_RATE * virtual_size as u64;

        let funding = self.generate(count.div_ceil(OUTPUTS) as u64);
        self.generate(100);
        let mut coins = Vec::with_capacity(count);
        let mut splits = Vec::new();
        for hash in funding {
            let wanted = OUTPUTS.min(count - coins.len());
            let coinbase = &self.block(&hash)["tx"][0];
            let paid = bitcoins(&coinbase["vout"][0]["value"]);
            let id = block::parse_display(coinbase["txid"].as_str().expect("a txid"));
            let each = (paid - FEE_RATE * 50 * (wanted as u64 + 2)) / wanted as u64;
            let split = spend((id, 0), vec![each; wanted], 0);
            let id = split.txid();
            coins.extend((0..wanted as u32).map(|place| ((id, place), each)));
            splits.push(split);
        }
        self.send(&splits);
        self.generate(1);

        let plain = spend(coins[0].0, vec![0], 0).virtual_size();
        let padding = virtual_size
            .checked_sub(plain)
            .filter(|padding| *padding == 0 || (PAD_MIN..=MAX_PADDING).contains(padding))
            .unwrap_or_else(|| panic!("a virtual size of {virtual_size} cannot be made"));
        let transactions: Vec<Transaction> = coins
            .into_iter()
            .map(|(coin, value)| spend(coin, vec![value - fee], padding))
            .collect();
        assert_eq!(transactions[0].virtual_size(), virtual_size);
        self.send(&transactions);
        let entered = self.must("getmempoolinfo", json!([]))["size"].clone();
        assert_eq!(entered, json!(count), "transactions in the mempool");
    }

    /// Hands transactions to the mempool.
    pub fn send(&mut self, transactions: &[Transaction]) {
        let mut rpc = self.connect().expect("a connection");
        for part in transactions.chunks(200) {
            let calls: Vec<_> = part
                .iter()
                .map(|transaction| {
                    let bytes = hex::encode(transaction.bytes());
                    // No limit on the fee, nor on what is burnt in an OP_RETURN output.
                    ("sendrawtransaction", json!([bytes, 0, 21_000_000]))
                })
                .collect();
            for answer in rpc.batch(&calls).expect("an answer to the batch") {
                answer.unwrap_or_else(|error| panic!("sendrawtransaction: {error}"));
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_hard();
    }
}

/// One OP_RETURN output of a padding: eight bytes of value, one of length, a script of up to 83
/// bytes. Knots takes no more of that into its mempool, so that the rest is payments.
const PAD_MIN: usize = 10;
const PAD_MAX: usize = 92;
const MAX_PADDING: usize = 2000;
/// One payment to [`block::anyone_can_spend`], in bytes and in satoshis.
const PAYMENT_SIZE: usize = 43;
const PAYMENT: u64 = 1000;

/// Spends an output of [`block::anyone_can_spend`] into others of its kind, and `padding` more
/// bytes (none, or ten and more), whose value is taken from the first of them.
pub fn spend(input: (block::Hash, u32), values: Vec<u64>, mut padding: usize) -> Transaction {
    let to_anyone = |value| Output { value, script: block::anyone_can_spend() };
    let mut outputs: Vec<Output> = values.into_iter().map(to_anyone).collect();
    while padding > PAD_MAX {
        outputs[0].value -= PAYMENT;
        outputs.push(to_anyone(PAYMENT));
        padding -= PAYMENT_SIZE;
    }
    if padding > 0 {
        let mut script = vec![0x00; padding - 9];
        script[0] = 0x6a;
        outputs.push(Output { value: 0, script });
    }
    Transaction {
        input,
        script_sig: Vec::new(),
        sequence: u32::MAX,
        outputs,
        witness: vec![block::OP_TRUE],
    }
}

/// Arguments for templates as large as a block may be; by default they stop far below.
pub const BIG_BLOCKS: [&str; 3] =
    ["-blockmaxweight=4000000", "-blockmaxsize=4000000", "-blockmintxfee=0"];

/// An amount as the node writes it, in satoshis.
fn bitcoins(amount: &Value) -> u64 {
    (amount.as_f64().expect("an amount") * 1e8).round() as u64
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A loopback port that nothing listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}
