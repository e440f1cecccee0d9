//! The access rules over the real store: any sequence of calls by four users on two groups, against a model.
#![no_main]

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use arbitrary::Arbitrary;
use domain::{FileHeader, FileName, GroupId, PieceLayout, Username};
use fuzz::block_on;
use libfuzzer_sys::fuzz_target;
use tracker_core::{
    Applicant, Caller, Membership, Origin, Ownership, Refusal, Requirement, SessionHash, Standing,
    access::{self, Proof},
    operator::ListingQuotas,
};
use tracker_svc::store::{
    Accounts as _, Files as _, Groups as _, HashRun, IfTaken, Publication, Sessions as _, StoreError,
    sqlite::Sqlite,
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Call {
    Create,
    Ask,
    Accept(u8),
    Reject(u8),
    Remove(u8),
    Transfer(u8),
    Leave,
    Delete,
    Publish,
    Unpublish,
    Look,
}

/// A group as the model knows it. Members in the order in which they came.
#[derive(Default)]
struct Group {
    owner: usize,
    members: Vec<usize>,
    asked: BTreeSet<usize>,
    publisher: Option<usize>,
}

impl Group {
    fn standing(&self, user: usize) -> Standing {
        match () {
            () if self.owner == user => Standing::Owner,
            () if self.members.contains(&user) => Standing::Member,
            () if self.asked.contains(&user) => Standing::Requested,
            () => Standing::None,
        }
    }
}

struct World {
    store: Arc<Sqlite>,
    users: Vec<Caller>,
    names: Vec<Username>,
    rounds: std::cell::Cell<u64>,
    _dir: tempfile::TempDir,
}

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

fn origin() -> Origin {
    Origin { actor: None, ip: None, request: "x".into(), at: SystemTime::now() }
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let store = Arc::new(Sqlite::open(dir.path()).await.expect("a store"));
        let (mut users, mut names) = (Vec::new(), Vec::new());
        for number in 0..4_u8 {
            let name: Username = format!("user{number}").parse().expect("a username");
            store.create_account(&name, "hash", None, &origin()).await.expect("an account");
            let credentials = store.credentials(&name).await.expect("a read").expect("an account");
            let hash = SessionHash::from([number; 32]);
            store.open_session(&credentials, None, hash, &origin()).await.expect("a session");
            let session = store.session(hash).await.expect("a read").expect("a session");
            // Each call asks for more by its proof.
            let caller = access::authenticate(Requirement::Session, session, SystemTime::now());
            users.push(caller.expect("a living session"));
            names.push(name);
        }
        Self { store, users, names, rounds: Default::default(), _dir: dir }
    }

    async fn enter<P: Proof>(&self, user: usize, group: &GroupId) -> Result<P, Refusal> {
        let place = self.store.place(self.users[user].account(), group).await.expect("a read");
        access::admit(&self.users[user], group, place)
    }
}

fn file() -> FileName {
    "f".parse().expect("a name")
}

fn done<T>(result: Result<T, StoreError>) -> Result<(), Refusal> {
    match result {
        Ok(_) => Ok(()),
        Err(StoreError::Refused(refusal)) => Err(refusal),
        Err(error) => panic!("{error}"),
    }
}

/// Makes the call at the store. Returns whether it was granted.
async fn real(world: &World, user: usize, group: &GroupId, call: Call) -> Result<(), Refusal> {
    let store = &world.store;
    let name = |user: u8| &world.names[usize::from(user % 4)];
    let at = &origin();
    match call {
        Call::Create => done(store.create_group(&world.users[user], group, at).await),
        Call::Ask => done(store.ask(&world.users[user], group, at).await),
        Call::Accept(whom) => {
            let owner: Ownership = world.enter(user, group).await?;
            done(store.accept(&owner, name(whom), at).await)
        }
        Call::Reject(whom) => {
            let owner: Ownership = world.enter(user, group).await?;
            done(store.reject(&owner, name(whom), at).await)
        }
        Call::Remove(whom) => {
            let owner: Ownership = world.enter(user, group).await?;
            done(store.remove_member(&owner, name(whom), at).await)
        }
        Call::Transfer(whom) => {
            let owner: Ownership = world.enter(user, group).await?;
            done(store.transfer(&owner, name(whom), at).await)
        }
        Call::Leave => {
            let leaving: Applicant = world.enter(user, group).await?;
            done(store.leave(&leaving, at).await)
        }
        Call::Delete => {
            let owner: Ownership = world.enter(user, group).await?;
            done(store.delete_group(&owner, at).await)
        }
        Call::Publish => {
            let member: Membership = world.enter(user, group).await?;
            let header = FileHeader {
                name: file(),
                layout: PieceLayout::new(1).expect("a length"),
                sha1: [3; 20].into(),
                blake3: [4; 32].into(),
                folder: None,
            };
            let manifest = store.stage_manifest(&member, 1, SystemTime::now()).await.expect("staged");
            let run = HashRun { first: 0, sha1: vec![1; 20], blake3: vec![2; 32] };
            store.stage_run(manifest, &run).await.expect("staged");
            let (header, if_taken, quotas) = (&header, IfTaken::Refuse, &ListingQuotas::default());
            let file = Publication { header, hashes: [7; 32], manifest, if_taken, quotas };
            done(store.publish(&member, file, at).await)
        }
        Call::Unpublish => {
            let member: Membership = world.enter(user, group).await?;
            done(store.unpublish(&member, &file(), at).await)
        }
        Call::Look => world.enter::<Membership>(user, group).await.map(drop),
    }
}

/// The same in the model. Returns whether it should be granted.
fn expected(groups: &mut BTreeMap<usize, Group>, user: usize, which: usize, call: Call) -> bool {
    if let Call::Create = call {
        if groups.contains_key(&which) {
            return false;
        }
        groups.insert(which, Group { owner: user, members: vec![user], ..Group::default() });
        return true;
    }
    let Some(group) = groups.get_mut(&which) else { return false };
    let standing = group.standing(user);
    let is_owner = standing == Standing::Owner;
    let is_member = standing >= Standing::Member;
    match call {
        Call::Create => unreachable!("done above"),
        Call::Ask => standing == Standing::None && group.asked.insert(user),
        Call::Accept(whom) => {
            let whom = usize::from(whom % 4);
            if is_owner && group.asked.remove(&whom) {
                group.members.push(whom);
                return true;
            }
            // Accepting a member again is no error.
            is_owner && group.members.contains(&whom)
        }
        Call::Reject(whom) => is_owner && group.asked.remove(&usize::from(whom % 4)),
        Call::Remove(whom) => {
            let whom = usize::from(whom % 4);
            let there = is_owner && whom != user && group.members.contains(&whom);
            group.members.retain(|member| !there || *member != whom);
            there
        }
        Call::Transfer(whom) => {
            let whom = usize::from(whom % 4);
            let there = is_owner && group.members.contains(&whom);
            if there {
                group.owner = whom;
            }
            there
        }
        Call::Leave => {
            if standing == Standing::Requested {
                return group.asked.remove(&user);
            }
            if !is_member {
                return false;
            }
            group.members.retain(|member| *member != user);
            match group.members.first() {
                None => drop(groups.remove(&which)),
                Some(&heir) if is_owner => group.owner = heir,
                Some(_) => {}
            }
            true
        }
        Call::Delete => is_owner && groups.remove(&which).is_some(),
        Call::Publish => {
            // The same content again is no error.
            if is_member {
                group.publisher.get_or_insert(user);
            }
            is_member
        }
        Call::Unpublish => {
            let may = is_member && group.publisher.is_some_and(|publisher| is_owner || publisher == user);
            if may {
                group.publisher = None;
            }
            may
        }
        Call::Look => is_member,
    }
}

fuzz_target!(|calls: Vec<(u8, bool, Call)>| {
    if calls.len() > 64 {
        return;
    }
    WORLD.with(|world| {
        block_on(async {
            if world.get().is_none() {
                let _ = world.set(World::new().await);
            }
            let world = world.get().expect("just made");
            let round = world.rounds.replace(world.rounds.get() + 1);
            let names: [GroupId; 2] =
                [0, 1].map(|which| format!("g{round} {which}").parse().expect("a group"));
            let mut groups = BTreeMap::new();
            for (user, which, call) in calls {
                let (user, which) = (usize::from(user % 4), usize::from(which));
                let granted = real(world, user, &names[which], call).await;
                let right = expected(&mut groups, user, which, call);
                assert_eq!(granted.is_ok(), right, "user{user} {call:?} in {which}: {granted:?}");
                for (number, caller) in world.users.iter().enumerate() {
                    let place = world.store.place(caller.account(), &names[which]).await.expect("a read");
                    let standing = groups.get(&which).map(|group| group.standing(number));
                    assert_eq!(place.map(|place| place.standing), standing, "user{number} after {call:?}");
                }
            }
            // Users own a bounded number of groups.
            for (which, group) in groups {
                let owner: Ownership = world.enter(group.owner, &names[which]).await.expect("the owner");
                world.store.delete_group(&owner, &origin()).await.expect("deleted");
            }
        });
    });
});
