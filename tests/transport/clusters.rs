//! Machines of two clusters part.

use ennead::transport::{CloseCode, Config, To};
use ennead_ring::view::ClusterId;

use super::{Authority, End, free_name, peer_config, ring, talk};

pub(super) fn in_cluster(authority: &Authority, last: u8, id: u64) -> End {
    End::start(Config { cluster: Some(ClusterId::new(id)), ..peer_config(authority, free_name(last)) })
}

#[tokio::test]
async fn two_clusters_refuse_each_other() {
    let authority = Authority::new();
    let mut a = in_cluster(&authority, 1, 1);
    let b = in_cluster(&authority, 2, 2);
    a.transport.send(To::Machine(b.name()), ring(None, 1));
    let reason = a.down().await;
    assert!(reason.contains("another cluster: I belong to 0000000000000002"), "{reason}");
    b.until_refused(CloseCode::AnotherCluster, 1).await;
    assert_eq!(a.transport.stats().connections, 0);
}

#[tokio::test]
async fn a_blank_machine_that_adopts_a_cluster_leaves_the_others() {
    let authority = Authority::new();
    let mut a = in_cluster(&authority, 1, 1);
    let mut b = in_cluster(&authority, 2, 2);
    let mut blank = End::peer(&authority, free_name(3));
    talk(&blank, &mut a).await;
    talk(&blank, &mut b).await;
    blank.transport.set_cluster(ClusterId::new(1));
    assert!(b.down().await.contains("another cluster"));
    assert!(blank.down().await.contains("another cluster"));
    talk(&blank, &mut a).await;
}
