//! noq's tokio API under the same work as the other peers: `server`, or `client PORT bytes|requests|idle N`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use noq::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SMALL: usize = 100;
const BLOCK: usize = 256 << 10;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server"] => server().await,
        ["client", port, mode, count] => client(port.parse()?, mode, count.parse()?).await,
        _ => Err("server | client PORT bytes|requests|idle N".into()),
    }
}

fn transport() -> Arc<TransportConfig> {
    // With the 16 MiB window of the other peers, noq ends the connection at the first loss (quinn issue 2809): it
    // has its own default, 1.25 MB, which is more than loopback needs.
    let mut config = TransportConfig::default();
    config.max_idle_timeout(Some(VarInt::from_u32(120_000).into()));
    Arc::new(config)
}

async fn server() -> Result<()> {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let mut config = ServerConfig::with_single_cert(vec![certificate.cert.into()], key.into())?;
    config.transport_config(transport());
    let endpoint = Endpoint::server(config, "127.0.0.1:0".parse()?)?;
    println!("{{\"port\": {}}}", endpoint.local_addr()?.port());
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                while let Ok((send, receive)) = connection.accept_bi().await {
                    tokio::spawn(answer(send, receive));
                }
            }
        });
    }
    Ok(())
}

/// The same answer for a small stream as was asked, for a large one the count of its bytes.
async fn answer(mut send: noq::SendStream, receive: noq::RecvStream) -> Result<()> {
    let mut total = 0;
    let mut receive = receive.into_unordered();
    while let Some(chunk) = receive.read_chunk(usize::MAX).await? {
        total += chunk.bytes.len();
    }
    let size = if total <= SMALL { total } else { 8 };
    send.write_all(&vec![0; size]).await?;
    send.finish()?;
    Ok(())
}

async fn client(port: u16, mode: &str, count: usize) -> Result<()> {
    let mut crypto = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    crypto.enable_early_data = false;
    let crypto = noq::crypto::rustls::QuicClientConfig::try_from(crypto)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    let endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(config);
    let connect = || endpoint.connect(([127, 0, 0, 1], port).into(), "localhost");
    match mode {
        "bytes" => bytes(connect()?.await?, count).await,
        "requests" => requests(connect()?.await?, count).await,
        "idle" => {
            let mut connections = Vec::new();
            for _ in 0..count {
                connections.push(connect()?.await?);
            }
            println!("{{\"connections\": {}}}", connections.len());
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(())
        }
        _ => Err("an unknown mode".into()),
    }
}

async fn bytes(connection: Connection, count: usize) -> Result<()> {
    let start = Instant::now();
    let (mut send, mut receive) = connection.open_bi().await?;
    let block = vec![0; BLOCK];
    for _ in 0..count / BLOCK {
        send.write_all(&block).await?;
    }
    send.finish()?;
    receive.read_to_end(SMALL).await?;
    println!("{{\"seconds\": {}}}", start.elapsed().as_secs_f64());
    Ok(())
}

async fn requests(connection: Connection, count: usize) -> Result<()> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&[0; SMALL]).await?;
        send.finish()?;
        receive.read_to_end(SMALL).await?;
        times.push(start.elapsed().as_secs_f64());
    }
    println!("{{\"times\": {times:?}}}");
    Ok(())
}

/// All peers of the bench trust whoever answers on loopback.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}
