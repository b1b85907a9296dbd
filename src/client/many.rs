//! Many keys at once: each has an outcome of its own, as no change here spans two keys.

use futures_util::{Stream, StreamExt, stream};

use super::{Client, Error, Record};

/// Operations under way at once, of one call.
pub(super) const AT_ONCE: usize = 64;

impl Client {
    /// The settled value of each of these keys, in their order: [`get`](Self::get), some of them at a time. The values
    /// are not of one moment.
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Option<Record>, Error>> {
        self.get_each(keys).collect().await
    }

    /// The same, each as soon as those before it are there: for more than memory holds.
    pub fn get_each<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> impl Stream<Item = Result<Option<Record>, Error>> {
        stream::iter(keys).map(|key| self.get(key)).buffered(AT_ONCE)
    }

    /// Stores all of these, and tells the version of each in their order: [`put`](Self::put), some of them at a time.
    /// Each is stored or not for itself. Of a key that is there twice, either value may be the later one.
    pub async fn put_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Vec<Result<u64, Error>> {
        stream::iter(pairs)
            .map(|(key, value)| self.put(key, value).into_future())
            .buffered(AT_ONCE)
            .collect()
            .await
    }
}
