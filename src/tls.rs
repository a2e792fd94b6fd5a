//! TLS 1.3 for QUIC: Ed25519 raw public keys in both directions (RFC 7250), or X.509 for plain QUIC peers.
//!
//! With raw keys a client names the peer it wants by the key itself. The key travels to the verifier as the
//! TLS server name, spelled in hexadecimal and never sent: SNI is off, so the wire does not show who is asked for.

use std::sync::Arc;

use curve25519_dalek::edwards::CompressedEdwardsY;
use noq_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::seeded::Seeded;

/// RFC 8410 §7: an Ed25519 private key in PKCS #8, up to the 32 bytes of the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// RFC 8410 §4: a SubjectPublicKeyInfo for Ed25519, up to the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// An Ed25519 public key: what a peer is.
pub type PeerKey = [u8; 32];

/// How an endpoint proves who it is and what it asks of the other side.
pub enum Credentials {
    /// Both sides prove Ed25519 keys; this is our seed.
    RawKey([u8; 32]),
    /// A certificate chain and its PKCS #8 key to serve with, and roots to trust; clients stay anonymous.
    X509 {
        chain: Vec<Vec<u8>>,
        key: Vec<u8>,
        roots: Vec<Vec<u8>>,
    },
}

impl Credentials {
    /// `seeded`: what to draw from instead of the system's randomness.
    pub fn client_config(
        &self,
        alpns: Vec<Vec<u8>>,
        seeded: Option<&Seeded>,
    ) -> Result<QuicClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(provider(seeded))
            .with_protocol_versions(&[&TLS13])?;
        let mut config = match self {
            Self::RawKey(seed) => {
                let mut config = builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(RawKeyVerifier))
                    .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                        certified_key(seed)?,
                    )));
                config.enable_sni = false;
                config
            }
            Self::X509 { roots, .. } => {
                let mut store = RootCertStore::empty();
                for root in roots {
                    store.add(CertificateDer::from(root.clone()))?;
                }
                builder.with_root_certificates(store).with_no_client_auth()
            }
        };
        config.alpn_protocols = alpns;
        // A session ticket would let a later handshake skip the proof of the peer's key.
        config.resumption = Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
    }

    /// `seeded`: what to draw from instead of the system's randomness.
    pub fn server_config(
        &self,
        alpns: Vec<Vec<u8>>,
        seeded: Option<&Seeded>,
    ) -> Result<QuicServerConfig, Error> {
        let builder = ServerConfig::builder_with_provider(provider(seeded))
            .with_protocol_versions(&[&TLS13])?;
        let mut config = match self {
            Self::RawKey(seed) => builder
                .with_client_cert_verifier(Arc::new(RawKeyVerifier))
                .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
                    certified_key(seed)?,
                ))),
            Self::X509 { chain, key, .. } => builder.with_no_client_auth().with_single_cert(
                chain.iter().cloned().map(CertificateDer::from).collect(),
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone())),
            )?,
        };
        config.alpn_protocols = alpns;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
    }
}

fn provider(seeded: Option<&Seeded>) -> Arc<CryptoProvider> {
    let provider = ring::default_provider();
    Arc::new(match seeded {
        Some(seeded) => seeded.crypto(provider),
        None => provider,
    })
}

/// The TLS server name that asks for a peer: two labels, as one holds at most 63 octets, neither all digits.
pub fn server_name(peer: &PeerKey) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("k{}.k{}", hex(&peer[..16]), hex(&peer[16..]))
}

/// The key in a raw-public-key "certificate", if it is an Ed25519 one.
pub fn peer_key(spki: &[u8]) -> Option<PeerKey> {
    let key: PeerKey = spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    // For a key of small order anybody can sign, so it is nobody's.
    let point = CompressedEdwardsY(key).decompress()?;
    (!point.is_small_order()).then_some(key)
}

fn certified_key(seed: &[u8; 32]) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = PrivatePkcs8KeyDer::from([PKCS8_PREFIX.as_slice(), seed].concat());
    let key = ring::sign::any_eddsa_type(&pkcs8)?;
    let spki = key
        .public_key()
        .ok_or_else(|| Error::General("an Ed25519 key without its public half".into()))?;
    let certificate = CertificateDer::from(spki.to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}

#[derive(Debug)]
struct RawKeyVerifier;

impl RawKeyVerifier {
    fn verify(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(certificate.as_ref()),
            signature,
            &ring::default_provider().signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        wanted: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let proved = peer_key(end_entity).ok_or(rustls::CertificateError::BadEncoding)?;
        if wanted.to_str() == server_name(&proved) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Any key may connect: who it is, the application decides when it sees the connection's peer.
        peer_key(end_entity).ok_or(rustls::CertificateError::BadEncoding)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_for_which_anybody_can_sign_is_nobodys() {
        let spki = |key: PeerKey| [SPKI_PREFIX.as_slice(), &key].concat();
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        for key in [[0; 32], one, minus_one] {
            assert_eq!(peer_key(&spki(key)), None);
        }
    }

    #[test]
    fn a_peer_is_recognised_by_its_own_key_alone() {
        let key = certified_key(&[7; 32]).unwrap();
        let other = certified_key(&[8; 32]).unwrap();
        let peer = peer_key(&key.cert[0]).unwrap();
        let name = ServerName::try_from(server_name(&peer)).unwrap();
        let verify = |certificate: &CertificateDer<'_>| {
            RawKeyVerifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now())
        };
        assert!(verify(&key.cert[0]).is_ok());
        assert!(verify(&other.cert[0]).is_err());
        assert!(verify(&CertificateDer::from(vec![0; 44])).is_err());
    }
}
