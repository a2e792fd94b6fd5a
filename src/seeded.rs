//! Everything random in an engine drawn from one seed, so that a run in memory can be repeated byte for byte.
//!
//! For simulation alone: who knows the seed knows every key. What is drawn here is what noq, rustls and ring would
//! otherwise take from the system: connection ids, keys for resets and tokens, TLS randoms and key shares.

use std::hash::Hasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use curve25519_dalek::MontgomeryPoint;
use noq_proto::crypto::{CryptoError, HandshakeTokenKey};
use noq_proto::{ConnectionId, ConnectionIdGenerator, EndpointConfig, InvalidCid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ring::{aead, hmac};
use rustc_hash::FxHasher;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// The generators that no engine uses at the moment. rustls wants them `'static`, so they are used again instead of
/// freed: a process keeps as many as it had seeded engines at once.
static FREE: Mutex<Vec<&'static Generator>> = Mutex::new(Vec::new());

/// The generator of one engine, for as long as that lives.
pub struct Seeded(&'static Generator);

impl Seeded {
    pub fn new(seed: [u8; 32]) -> Self {
        let free = locked(&FREE).pop();
        let generator = free.unwrap_or_else(|| Box::leak(Box::new(Generator::new())));
        *locked(&generator.0) = StdRng::from_seed(seed);
        Self(generator)
    }

    /// noq's own configuration, its random parts drawn from the seed.
    pub fn endpoint_config(&self) -> EndpointConfig {
        let reset_key: [u8; 64] = self.0.draw();
        let mut config =
            EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset_key)));
        let cids = CidGenerator {
            generator: self.0,
            key: u64::from_le_bytes(self.0.draw()),
        };
        config
            .rng_seed(Some(self.0.draw()))
            .cid_generator(Arc::new(move || Box::new(cids.clone())));
        config
    }

    /// The key for address validation tokens.
    pub fn token_key(&self) -> Arc<dyn HandshakeTokenKey> {
        let key: [u8; 64] = self.0.draw();
        Arc::new(TokenKey(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// Where a client's first packets say they go to (RFC 9000 §7.2), for as many connections as are made.
    pub fn initial_dst_cids(&self) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
        let generator = self.0;
        Arc::new(move || ConnectionId::new(&generator.draw::<20>()))
    }

    /// `provider` with nothing of its randomness left. Only X25519 is offered, as ring's other groups have no seed.
    pub fn crypto(&self, provider: CryptoProvider) -> CryptoProvider {
        CryptoProvider {
            kx_groups: vec![self.0],
            secure_random: self.0,
            ..provider
        }
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        locked(&FREE).push(self.0);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Neither a list nor a generator can be left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Generator(Mutex<StdRng>);

impl Generator {
    fn new() -> Self {
        Self(Mutex::new(StdRng::from_seed([0; 32])))
    }

    fn draw<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        locked(&self.0).fill_bytes(&mut bytes);
        bytes
    }
}

impl SecureRandom for Generator {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        locked(&self.0).fill_bytes(bytes);
        Ok(())
    }
}

/// X25519 (RFC 7748 §5).
impl SupportedKxGroup for Generator {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = self.draw();
        Ok(Box::new(KeyExchange {
            secret,
            public: MontgomeryPoint::mul_base_clamped(secret).to_bytes(),
        }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }
}

struct KeyExchange {
    secret: [u8; 32],
    public: [u8; 32],
}

impl ActiveKeyExchange for KeyExchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer
            .try_into()
            .map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = MontgomeryPoint(peer).mul_clamped(self.secret).to_bytes();
        // RFC 8446 §7.4.2: all zeros means that the peer's point has a small order.
        if shared == [0; 32] {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(shared.as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

const CID_NONCE: usize = 3;
const CID_LENGTH: usize = 8;

/// Connection ids that the endpoint recognises, of the form that noq's own generator gives them.
#[derive(Clone)]
struct CidGenerator {
    generator: &'static Generator,
    key: u64,
}

impl CidGenerator {
    fn with_check(&self, nonce: &[u8]) -> [u8; CID_LENGTH] {
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.key);
        hasher.write(nonce);
        let mut cid = [0; CID_LENGTH];
        cid[..CID_NONCE].copy_from_slice(nonce);
        cid[CID_NONCE..].copy_from_slice(&hasher.finish().to_le_bytes()[..CID_LENGTH - CID_NONCE]);
        cid
    }
}

impl ConnectionIdGenerator for CidGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.with_check(&self.generator.draw::<CID_NONCE>()))
    }

    fn validate(&self, cid: ConnectionId) -> Result<(), InvalidCid> {
        match cid.get(..CID_NONCE) {
            Some(nonce) if cid[..] == self.with_check(nonce) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        CID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Seals each token with a key of its own, derived from the token's nonce.
struct TokenKey(hmac::Key);

impl TokenKey {
    fn derive(&self, token_nonce: u128) -> Result<(aead::LessSafeKey, aead::Nonce), CryptoError> {
        let key = hmac::sign(&self.0, &token_nonce.to_le_bytes());
        let key =
            aead::UnboundKey::new(&aead::AES_256_GCM, key.as_ref()).map_err(|_| CryptoError)?;
        // The key seals this token alone, so its nonce need not vary.
        let nonce = aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN]);
        Ok((aead::LessSafeKey::new(key), nonce))
    }
}

impl HandshakeTokenKey for TokenKey {
    fn seal(&self, token_nonce: u128, data: &mut Vec<u8>) -> Result<(), CryptoError> {
        let (key, nonce) = self.derive(token_nonce)?;
        key.seal_in_place_append_tag(nonce, aead::Aad::empty(), data)
            .map_err(|_| CryptoError)
    }

    fn open<'a>(&self, token_nonce: u128, data: &'a mut [u8]) -> Result<&'a [u8], CryptoError> {
        let (key, nonce) = self.derive(token_nonce)?;
        key.open_in_place(nonce, aead::Aad::empty(), data)
            .map(|data| &*data)
            .map_err(|_| CryptoError)
    }
}
