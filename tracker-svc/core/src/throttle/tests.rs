use super::*;

const HERE: &str = "192.0.2.7";
const ELSEWHERE: &str = "198.51.100.9";

fn user(name: &str) -> Username {
    name.parse().expect("a username")
}

fn login(ip: &str) -> Login {
    Login::new(&user("ann"), ip.parse().expect("an address"), false)
}

fn start(throttle: &mut Throttle, ip: &str, now: Moment) -> Result<Counts, Wait> {
    throttle.step(&login(ip), Step::Start, now)
}

fn end(throttle: &mut Throttle, ip: &str, counts: &Counts, step: fn(bool) -> Step) {
    throttle.step(&login(ip), step(for_account(counts)), Moment::ZERO).expect("no wait at the end");
}

fn right(for_account: bool) -> Step {
    Step::Right { for_account }
}

#[test]
fn five_are_free_and_then_the_wait_doubles_up_to_a_quarter_of_an_hour() {
    let (mut throttle, mut now) = (Throttle::default(), Moment::ZERO);
    for _ in 0..FREE {
        assert!(start(&mut throttle, HERE, now).is_ok());
    }
    for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
        let wait = Duration::from_secs(seconds);
        assert_eq!(start(&mut throttle, HERE, now).err().map(|refused| refused.time), Some(wait));
        now += wait;
        assert!(start(&mut throttle, HERE, now).is_ok());
    }
    // The wait applies to another address of the same network, but not to another network.
    assert!(start(&mut throttle, "192.0.2.200", now).is_err());
    assert!(start(&mut throttle, ELSEWHERE, now).is_ok());
    assert!(start(&mut throttle, HERE, now + FORGET).is_ok());
}

#[test]
fn a_right_password_clears_and_an_undone_try_does_not_count() {
    let (mut throttle, now) = (Throttle::default(), Moment::ZERO);
    for _ in 0..150 {
        let counts = start(&mut throttle, HERE, now).expect("let through");
        end(&mut throttle, HERE, &counts, right);
    }
    for _ in 0..150 {
        let counts = start(&mut throttle, ELSEWHERE, now).expect("let through");
        end(&mut throttle, ELSEWHERE, &counts, |for_account| Step::Undone { for_account });
    }
}

#[test]
fn guessing_from_everywhere_is_slowed_but_a_known_network_is_let_in() {
    let (mut throttle, now) = (Throttle::default(), Moment::ZERO);
    let counts = start(&mut throttle, HERE, now).expect("let through");
    end(&mut throttle, HERE, &counts, right);
    for net in 0..PER_ACCOUNT {
        assert!(start(&mut throttle, &format!("203.0.{net}.1"), now).is_ok());
    }
    assert!(start(&mut throttle, "203.1.0.1", now).is_err());
    assert!(start(&mut throttle, HERE, now).is_ok());
    assert!(start(&mut throttle, "203.1.0.1", now + HOUR).is_ok());
}

#[test]
fn an_address_has_a_hundred_failures_a_minute_unless_exempt() {
    let (mut throttle, now) = (Throttle::default(), Moment::ZERO);
    let ip: IpAddr = HERE.parse().expect("an address");
    let mut start = |n: u32, exempt, now| {
        throttle.step(&Login::new(&user(&format!("user{n}")), ip, exempt), Step::Start, now)
    };
    for n in 0..PER_ADDRESS {
        assert!(start(n, false, now).is_ok());
    }
    assert!(start(200, false, now).is_err());
    assert!(start(200, true, now).is_ok());
    assert!(start(201, false, now + MINUTE).is_ok());
}

#[test]
fn memory_is_bounded() {
    let mut throttle = Throttle::default();
    for n in 0..u32::try_from(MAX_KEYS).expect("fits") + 500 {
        let _ = start(&mut throttle, &std::net::Ipv4Addr::from(n << 8).to_string(), HOUR * n);
    }
    assert!(throttle.0.iter().all(|counts| counts.len() <= MAX_KEYS));
}

#[test]
fn keys_differ_in_their_texts() {
    let texts = login(HERE).keys().map(|key| key.expect("not exempt").to_string());
    assert_eq!(texts, ["ann 192.0.2.0", "ann *", "* 192.0.2.7"]);
    assert!("*".parse::<Username>().is_err() && "a b".parse::<Username>().is_err());
}

#[test]
fn networks() {
    let network = |ip: &str| Network::of(ip.parse().expect("an address"));
    assert_eq!(network("192.0.2.1"), network("192.0.2.254"));
    assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
    assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
    assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
    assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.9"));
}
