//! Against real TLS servers of our own making and a scripted SOCKS5 server.

use std::net::{Ipv4Addr, SocketAddr};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::secret::Secret;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer() -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a test's own issuer");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

fn ca_file(text: &str) -> Result<CaFile, CaFileError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, text).unwrap();
    CaFile::read(&file)
}

fn trusting(issuer: &Issuer) -> Transport {
    Transport::new().tls().trust(ca_file(&issuer.pem()).unwrap())
}

fn endpoint(host: &str, address: SocketAddr) -> Endpoint {
    Endpoint { host: host.to_owned(), port: address.port() }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A TLS server that sends back what it gets.
async fn tls_echo(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> SocketAddr {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us goes away; that is what is tested.
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let (mut from, mut to) = tokio::io::split(&mut tls);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// A server whose certificate the issuer has signed.
async fn signed(issuer: &Issuer, params: CertificateParams) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    tls_echo(vec![certificate.der().clone()], &key).await
}

async fn echoes(mut connection: Stream) {
    connection.write_all(b"hello\n").await.unwrap();
    connection.flush().await.unwrap();
    let mut back = [0; 6];
    connection.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello\n");
}

#[tokio::test]
async fn a_private_issuer_is_trusted_when_it_is_named() {
    let issuer = issuer();
    let server = signed(&issuer, leaf(&["localhost", "127.0.0.1"])).await;
    for host in ["localhost", "127.0.0.1"] {
        let to = endpoint(host, server);
        echoes(trusting(&issuer).connect(&to).await.unwrap()).await;
    }
}

#[tokio::test]
async fn bad_certificates_are_refused_and_each_is_told_apart() {
    let issuer = issuer();
    let mut expired = leaf(&["localhost"]);
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let mut early = leaf(&["localhost"]);
    early.not_before = date_time_ymd(2095, 1, 1);
    let nameless = leaf(&[]);
    let elsewhere = leaf(&["pool.example", "b.example", "c.example", "d.example"]);
    for (params, said, hint) in [
        (expired, "certificate has expired", "clock"),
        (early, "certificate is not valid yet", "clock"),
        (nameless, "is not for localhost: it has no subjectAltName", "as its certificate does"),
        (elsewhere, "but for pool.example, b.example, c.example, …", "as its certificate does"),
    ] {
        let server = signed(&issuer, params).await;
        let to = endpoint("localhost", server);
        let error = trusting(&issuer).connect(&to).await.unwrap_err();
        assert!(error.is_final());
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
    }
}

#[tokio::test]
async fn an_issuer_that_was_not_named_is_not_trusted() {
    let (ours, theirs) = (issuer(), issuer());
    let server = signed(&theirs, leaf(&["localhost"])).await;
    let to = endpoint("localhost", server);
    for transport in [Transport::new().tls(), trusting(&ours)] {
        let error = transport.connect(&to).await.unwrap_err();
        assert!(error.is_final());
        assert!(error.to_string().contains("issuer that is not known"), "{error}");
        assert!(error.hint().unwrap().contains("--tls-ca"));
    }
}

#[tokio::test]
async fn a_certificate_that_signs_itself() {
    let key = KeyPair::generate().unwrap();
    let plain = leaf(&["localhost"]).self_signed(&key).unwrap();
    let server = tls_echo(vec![plain.der().clone()], &key).await;
    let transport = Transport::new().tls().trust(ca_file(&plain.pem()).unwrap());
    echoes(transport.connect(&endpoint("localhost", server)).await.unwrap()).await;

    // As `openssl req -x509` makes it unless told otherwise.
    let mut authority = leaf(&["localhost"]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = authority.self_signed(&key).unwrap();
    let server = tls_echo(vec![authority.der().clone()], &key).await;
    let transport = Transport::new().tls().trust(ca_file(&authority.pem()).unwrap());
    let error = transport.connect(&endpoint("localhost", server)).await.unwrap_err();
    assert!(error.to_string().contains("certificate authority's own"), "{error}");
    assert!(error.hint().unwrap().contains("CA:FALSE"));
}

#[tokio::test]
async fn a_server_without_tls_is_reported_as_such() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(b"{\"id\":null,\"result\":null,\"error\":\"parse\"}\n").await.unwrap();
            let mut rest = Vec::new();
            let _ = tcp.read_to_end(&mut rest).await;
        }
    });
    let error = Transport::new().tls().connect(&endpoint("localhost", address)).await.unwrap_err();
    assert!(error.is_final(), "{error}");
    assert!(error.hint().unwrap().contains("TLS port"));
}

#[tokio::test]
async fn a_silent_server_is_left_at_the_deadline() {
    let (_listener, address) = listen().await;
    let transport = Transport::new().tls().deadline(Duration::from_millis(200));
    let error = transport.connect(&endpoint("localhost", address)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Deadline(_)) && !error.is_final(), "{error}");
}

#[test]
fn files_that_are_no_list_of_certificates() {
    let said = |text: &str| ca_file(text).unwrap_err().why;
    assert!(said("").contains("no certificate"));
    assert!(said("not PEM at all\n").contains("no certificate"));
    assert!(said(&KeyPair::generate().unwrap().serialize_pem()).contains("no certificate"));
    let pem = issuer().pem();
    assert!(said(&pem[..pem.len() / 2]).contains("damaged"));
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(said(empty).contains("no X.509"));
    assert!(said(&"x".repeat(2 << 20)).contains("larger than"));
    assert!(CaFile::read(std::path::Path::new("/nowhere/at/all")).is_err());
    let folder = tempfile::tempdir().unwrap();
    assert!(CaFile::read(folder.path()).unwrap_err().why.contains("no regular file"));
    assert!(ca_file(&format!("{pem}{}", issuer().pem())).is_ok());
}

/// What a scripted proxy does once it has understood what is wanted.
#[derive(Clone, Copy)]
enum Answer {
    /// Connects to this address, whatever name it was given.
    Connect(SocketAddr),
    /// Gives this reply code (RFC 1928, section 6).
    Refuse(u8),
}

/// One SOCKS5 exchange, as a server; gives the name and port that were asked for.
async fn socks5(
    listener: TcpListener,
    login: Option<(&str, &str)>,
    answer: Answer,
) -> (String, u16) {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut head = [0; 2];
    tcp.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 5);
    let mut methods = vec![0; usize::from(head[1])];
    tcp.read_exact(&mut methods).await.unwrap();
    let wanted = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&wanted) {
        tcp.write_all(&[5, 0xff]).await.unwrap();
        return (String::new(), 0);
    }
    tcp.write_all(&[5, wanted]).await.unwrap();
    if let Some((user, password)) = login {
        assert_eq!(tcp.read_u8().await.unwrap(), 1);
        let mut given = [Vec::new(), Vec::new()];
        for part in &mut given {
            *part = vec![0; usize::from(tcp.read_u8().await.unwrap())];
            tcp.read_exact(part).await.unwrap();
        }
        let right = given == [user.as_bytes(), password.as_bytes()];
        tcp.write_all(&[1, u8::from(!right)]).await.unwrap();
        if !right {
            return (String::new(), 0);
        }
    }
    let mut request = [0; 5];
    tcp.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..4], [5, 1, 0, 3], "connect, by name");
    let mut name = vec![0; usize::from(request[4])];
    tcp.read_exact(&mut name).await.unwrap();
    let port = tcp.read_u16().await.unwrap();
    let code = if let Answer::Refuse(code) = answer { code } else { 0 };
    tcp.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    if let Answer::Connect(to) = answer {
        let mut server = TcpStream::connect(to).await.unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut tcp, &mut server).await });
    }
    (String::from_utf8(name).unwrap(), port)
}

fn proxy(address: SocketAddr, login: Option<(&str, &str)>) -> Proxy {
    let (user, password) = login.unzip();
    Proxy {
        host: "127.0.0.1".to_owned(),
        port: address.port(),
        user: user.map(str::to_owned),
        password: password.map(|password| Secret::from(password.to_owned())),
    }
}

#[tokio::test]
async fn names_go_to_the_proxy_and_tls_goes_through_it() {
    let issuer = issuer();
    let server = signed(&issuer, leaf(&["pool.onion"])).await;
    for login in [None, Some(("alice", "hunter2"))] {
        let (listener, address) = listen().await;
        let asked = tokio::spawn(socks5(listener, login, Answer::Connect(server)));
        let transport = trusting(&issuer).proxy(proxy(address, login));
        let to = Endpoint { host: "pool.onion".to_owned(), port: 3333 };
        echoes(transport.connect(&to).await.unwrap()).await;
        assert_eq!(asked.await.unwrap(), ("pool.onion".to_owned(), 3333));
    }
}

#[tokio::test]
async fn what_a_proxy_refuses_is_said_without_the_password() {
    let to = Endpoint { host: "pool.example".to_owned(), port: 3333 };
    let wants = Some(("alice", "right"));
    for (wants, given, code, said, lasting) in [
        (None, None, 5, "the server refused its connection", false),
        (None, None, 4, "cannot reach the server", false),
        (None, None, 2, "rules do not allow", false),
        (wants, Some(("alice", "hunter2")), 0, "refuses the user or password", true),
        (wants, None, 0, "wants another login", true),
    ] {
        let (listener, address) = listen().await;
        tokio::spawn(socks5(listener, wants, Answer::Refuse(code)));
        let transport = Transport::new().proxy(proxy(address, given));
        let error = transport.connect(&to).await.unwrap_err();
        let text = format!("{error} {error:?} {transport:?}");
        assert!(text.contains(said) && !text.contains("hunter2"), "{text}");
        assert!(text.starts_with(&format!("proxy socks5://{address}: ")), "{text}");
        assert_eq!((error.is_final(), error.hint().is_some()), (lasting, lasting));
    }
}

#[tokio::test]
async fn a_server_that_is_no_proxy_and_a_proxy_that_is_not_there() {
    let to = Endpoint { host: "pool.example".to_owned(), port: 3333 };
    let (listener, address) = listen().await;
    let transport = Transport::new().proxy(proxy(address, None));
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
    });
    let error = transport.connect(&to).await.unwrap_err().to_string();
    assert!(error.contains("does not speak SOCKS5"), "{error}");

    let (listener, address) = listen().await;
    drop(listener);
    let error = Transport::new().proxy(proxy(address, None)).connect(&to).await.unwrap_err();
    assert!(error.to_string().contains("efused") && !error.is_final(), "{error}");
}

#[test]
fn endpoints_are_shown_with_brackets_and_proxies_without_logins() {
    let to = |host: &str| Endpoint { host: host.to_owned(), port: 1 }.to_string();
    assert_eq!((to("::1").as_str(), to("h").as_str()), ("[::1]:1", "h:1"));
    let address = SocketAddr::from(([127, 0, 0, 1], 9050));
    assert_eq!(proxy(address, Some(("u", "p"))).to_string(), "socks5://127.0.0.1:9050");
}
