//! Every command and flag, each defined once: its name, its meaning, its default.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use crate::imagined::Imagined;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ennead::Name;
use ennead::units;
use ennead_ring::view::MAX_WEIGHT;

/// The command line of ennead, a key-value store without a leader.
///
/// Data goes to stdout, talk to stderr. Exit code 0: yes. 1: no (absent, comparison failed, unhealthy).
/// 2: failed, and nothing changed. 3: the outcome is unknown; the write may yet take effect.
#[derive(Parser, Debug)]
#[command(name = "kvctl", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the cluster, and how to answer.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Some machines of the cluster; the others are learnt from them
    #[arg(
        long,
        global = true,
        env = "KVCTL_PEERS",
        value_name = "IP[:PORT],...",
        value_delimiter = ',',
        default_value = "127.0.0.1"
    )]
    pub(crate) peers: Vec<Name>,
    /// Folder with ca.pem, clients/NAME.pem and clients/NAME.key
    #[arg(long, global = true, env = "KVCTL_CERTS", value_name = "DIR")]
    pub(crate) certs: Option<PathBuf>,
    /// Which client's certificate; needed only where there are several
    #[arg(long = "as", global = true, env = "KVCTL_AS", value_name = "NAME")]
    pub(crate) identity: Option<String>,
    /// Deadline of each operation, retries included [default: 2s; of leave, remove and check in all: 10m; of list and backup without getting further: 30s]
    #[arg(long, global = true, env = "KVCTL_TIMEOUT", value_name = "TIME", value_parser = some_time)]
    timeout: Option<Duration>,
    /// Answer in JSON, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// How long one operation may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(2))
    }

    /// How long something that goes through all keys waits where it gets no further.
    pub(crate) fn patience_of_a_pass(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(30))
    }

    /// How long a change of the whole cluster may take, which is made of many operations.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(600))
    }
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Stores a value; prints its version
    Put(Put),
    /// Prints the value, byte for byte; of several keys, a line each
    ///
    /// Of several keys each line is KEY, a tab and the value, in which a backslash, a tab, a line's end and what is no
    /// UTF-8 are written \\\\, \\t, \\n and \\xHH; or with --json an object. Exit code 1: some have no value.
    Get(Get),
    /// Removes the value; prints the version of the removal
    Del(Del),
    /// How long the value is still kept; exit code 1 if there is none
    Ttl {
        /// The key
        key: String,
    },
    /// Gives the value another expiry, and nothing else: its version stays; exit code 1 if there is none
    Touch(Touch),
    /// Adds to the number that the value is; prints the sum. Counted exactly once, however often it had to be sent
    ///
    /// The value is a whole number in decimal; an absent key counts as 0; its expiry stays. Exit code 2: it is no such
    /// number, or the sum would be none, and nothing was changed.
    Incr(Incr),
    /// Carries out a JSON object a line, many at a time, and prints one a line, in the order of the file
    ///
    /// {"op": "put", "key": "k", "value": "v"} and likewise get, del, incr and touch, with what the command of that name
    /// takes: value or value_base64, ttl ("1h"), if_version, if_absent, by, keep. Lines of one key are carried out in
    /// their order; each line has its own outcome, and none undoes another. The exit code is the worst of all lines'.
    Batch {
        /// Which file; - reads stdin
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Runs a command while holding a lock that nobody else is given meanwhile; its exit code is the command's
    ///
    /// The lock is the key lock/NAME, with a time to live, renewed until the command ends and then deleted. The command
    /// finds the lock's version in ENNEAD_LOCK_TOKEN: it rises from holder to holder, and what the lock protects
    /// should refuse a lower one than it has seen. A lock that cannot be renewed is lost after two thirds of its time:
    /// the command gets SIGTERM, at nine tenths SIGKILL, so that it has ended before another is given the lock if the
    /// machines' clocks are less than a tenth of the time apart. Exit code 1: another held it; 2: it could not be
    /// asked for; 3: it was lost, and the command stopped; 126 and 127: the command cannot be run, or is not there.
    Lock(Lock),
    /// What `lock` runs, to become the command
    #[command(hide = true)]
    LockChild {
        parent: u32,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Lists the keys that begin with PREFIX, or all, in their order: streamed, however many there are
    ///
    /// Every key is in it whose last write ended before the listing began, and which was not written since.
    List(List),
    /// Writes every key into a file while the cluster works, or checks such a file
    ///
    /// The file is whole or not there: FILE.partial is what has been taken of it, and --resume goes on with that.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Backup(Backup),
    /// Puts the keys of a backup back, into an empty cluster or one that works
    ///
    /// Keys that have a value are left as they are. It can be done again. Exit code 1: some keys could not be restored.
    Restore(Restore),
    /// Shows where a key's slots are on the ring, and who owns them
    Locate(Locate),
    /// Can any four machines fail now? Who is up, suspect or down, and why; what moves
    ///
    /// Exit code 0: all machines are up; with MACHINE: this one is, and votes for all it owns. 1: not so.
    Status(Status),
    /// Lists the machines: state, view, share of the data, version
    Members(Watch),
    /// Draws the ring: who owns how much, and with --key where a key's slots are
    Ring(Ring),
    /// Lists the data on its way: to whom, from whom, how fast, how long yet, what it waits for
    Moves(Watch),
    /// What each machine does now: operations, latencies, queues; live on a terminal
    Top(Top),
    /// Lets a machine hand its data over and go; with --plan shows the move and changes nothing
    ///
    /// Exit code 1: no such machine. 2: refused, and nothing changed. 3: the time is over, the outcome unknown.
    Leave(Leave),
    /// Retires a machine that is gone for good; the others restore its copies
    ///
    /// Exit code 1: no such machine. 2: refused, and nothing changed. 3: the time is over, the outcome unknown.
    Remove(Remove),
    /// Gives a machine more or fewer virtual peers, so that it owns more or less of the data; with --plan shows the move
    ///
    /// Exit code 1: no such machine. 2: refused, and nothing changed. 3: the time is over, the outcome unknown.
    Weight(Weight),
    /// Goes on without machines that are lost for good where five of the nine copies of some keys went with them
    ///
    /// Writes that were acknowledged may be lost: it tells how many keys are concerned, and asks. Exit code 1: no such
    /// machine. 2: refused, and nothing changed. 3: the outcome is unknown.
    Recover(Recover),
    /// Compares every copy of every key, and mends what is not alike; 0 if all were
    Check,
    /// Why a machine failed or is not well: the verdict, and the evidence; of all machines where none is named
    ///
    /// Exit code 1: nothing is known of such a machine; or, where none is named, something is wrong with one now.
    Why {
        /// Which machine [default: all members]
        #[arg(value_name = "MACHINE")]
        machine: Option<Name>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Crash reports kept in the ring, newest first; exit code 1 if there are none
    Crashes {
        /// Only this machine's, in full
        #[arg(value_name = "MACHINE")]
        machine: Option<Name>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Makes and shows certificates
    Certs {
        #[command(subcommand)]
        command: Certs,
    },
    /// Measures puts and gets; writes keys that begin with bench/
    Bench(Bench),
    /// Runs a cluster of any size in one thread, through days of faults, and tells what became of it
    Sim(Sim),
    /// Prints a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page of kvctl, or of one command
    Man {
        /// Such as put
        command: Option<String>,
    },
}

/// `kvctl put`.
#[derive(Args, Debug)]
pub(crate) struct Put {
    /// 1 B to 16 KiB
    pub(crate) key: String,
    /// Up to 8 MiB; - reads stdin to its end
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: String,
    /// The value expires after this long
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(crate) ttl: Option<Duration>,
    /// Only if the key has this version; else exit code 1
    #[arg(long, value_name = "V", conflicts_with = "if_absent")]
    pub(crate) if_version: Option<u64>,
    /// Only if the key has no value; else exit code 1
    #[arg(long)]
    pub(crate) if_absent: bool,
}

/// `kvctl get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The key, or several
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// quorum: what five slots agree on. one: what one copy holds, which may be stale
    #[arg(long, value_enum, default_value_t = Read::Quorum)]
    pub(crate) read: Read,
    /// Show every copy's own answer, and how fast it came
    #[arg(long)]
    pub(crate) copies: bool,
}

/// How many must agree on what is read.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Read {
    /// Five.
    Quorum,
    /// A dirty read.
    One,
}

/// `kvctl del`.
#[derive(Args, Debug)]
pub(crate) struct Del {
    /// The key
    pub(crate) key: String,
    /// Only if the key has this version; else exit code 1
    #[arg(long, value_name = "V")]
    pub(crate) if_version: Option<u64>,
}

/// `kvctl touch`.
#[derive(Args, Debug)]
pub(crate) struct Touch {
    /// The key
    pub(crate) key: String,
    /// It expires after this long from now on
    #[arg(
        long,
        value_name = "TIME",
        value_parser = some_time,
        required_unless_present = "keep",
        conflicts_with = "keep"
    )]
    pub(crate) ttl: Option<Duration>,
    /// It expires no more
    #[arg(long)]
    pub(crate) keep: bool,
    /// Only if the key has this version; else exit code 1
    #[arg(long, value_name = "V")]
    pub(crate) if_version: Option<u64>,
}

/// `kvctl incr`.
#[derive(Args, Debug)]
pub(crate) struct Incr {
    /// The key
    pub(crate) key: String,
    /// How much
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) by: i64,
}

/// `kvctl lock`.
#[derive(Args, Debug)]
pub(crate) struct Lock {
    /// The lock: the key lock/NAME
    pub(crate) name: String,
    /// How long it stays locked if kvctl or its machine dies; at least 1s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = some_time)]
    pub(crate) ttl: Duration,
    /// How long to wait for it; 0s: not at all
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    pub(crate) wait: Duration,
    /// What to run, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `kvctl list`.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// What the keys begin with [default: nothing]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// At most so many keys; stderr tells how to go on
    #[arg(long, value_name = "N", value_parser = some_count)]
    pub(crate) limit: Option<u64>,
    /// Print the values too
    #[arg(long)]
    pub(crate) values: bool,
    /// Go on after this key, such as the last one listed
    #[arg(long, value_name = "CURSOR", conflicts_with = "after_base64")]
    pub(crate) after: Option<String>,
    /// The same for a key that is no text
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after_base64: Option<String>,
}

/// `kvctl backup`.
#[derive(Args, Debug)]
pub(crate) struct Backup {
    #[command(subcommand)]
    pub(crate) command: Option<BackupCommand>,
    /// Where to; it must not be there yet
    #[arg(value_name = "FILE", required = true)]
    pub(crate) file: Option<PathBuf>,
    /// Only what changed since these: the last full backup, and those that go on from it, the oldest first
    #[arg(long, value_name = "FILE,...", value_delimiter = ',')]
    pub(crate) since: Vec<PathBuf>,
    /// Go on with FILE.partial
    #[arg(long)]
    pub(crate) resume: bool,
    /// Only keys that begin so
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
}

/// `kvctl backup verify`.
#[derive(Subcommand, Debug)]
pub(crate) enum BackupCommand {
    /// Reads all of a file, asks nobody, and names the first bad block; exit code 1 if there is one
    Verify {
        /// Which
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `kvctl restore`.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Those that it goes on from: the last full backup first
    #[arg(long, value_name = "FILE,...", value_delimiter = ',')]
    pub(crate) since: Vec<PathBuf>,
    /// Write over values that are there
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// `kvctl locate`.
#[derive(Args, Debug)]
pub(crate) struct Locate {
    /// The key
    pub(crate) key: String,
    /// Compute it for a cluster of these machines, and ask nobody
    #[arg(long, value_name = "IP[:PORT][@ZONE],...", value_delimiter = ',')]
    pub(crate) machines: Vec<Imagined>,
    /// With --machines: positions of each on the ring [default: 1]
    #[arg(long, value_name = "N", requires = "machines")]
    pub(crate) virtual_peers: Option<u32>,
    /// With --machines: slots of each key [default: 9]
    #[arg(long, value_name = "N", requires = "machines")]
    pub(crate) slots: Option<u8>,
}

/// Once, or again and again.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// Look again every second, until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// `kvctl status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Only this machine
    #[arg(value_name = "MACHINE")]
    pub(crate) machine: Option<Name>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

/// `kvctl top`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Top {
    /// Look again every second, until Ctrl-C, where stdout is no terminal either
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Look for one second, and end
    #[arg(long, conflicts_with = "watch")]
    pub(crate) once: bool,
}

/// `kvctl ring`.
#[derive(Args, Debug)]
pub(crate) struct Ring {
    #[command(flatten)]
    pub(crate) watch: Watch,
    /// Mark this key's slots on the circle
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Draw it for a cluster of these machines, and ask nobody
    #[arg(long, value_name = "IP[:PORT][@ZONE],...", value_delimiter = ',', conflicts_with = "watch")]
    pub(crate) machines: Vec<Imagined>,
    /// With --machines: positions of each on the ring [default: 1]
    #[arg(long, value_name = "N", requires = "machines")]
    pub(crate) virtual_peers: Option<u32>,
    /// Draw it into this file as well, as a picture
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(crate) svg: Option<PathBuf>,
}

/// `kvctl leave`.
#[derive(Args, Debug)]
pub(crate) struct Leave {
    /// Which machine
    #[arg(value_name = "MACHINE")]
    pub(crate) machine: Name,
    #[command(flatten)]
    pub(crate) how: How,
}

/// `kvctl remove`.
#[derive(Args, Debug)]
pub(crate) struct Remove {
    /// Which machine
    #[arg(value_name = "MACHINE")]
    pub(crate) machine: Name,
    #[command(flatten)]
    pub(crate) how: How,
    /// Do not ask
    #[arg(short, long, conflicts_with = "plan")]
    pub(crate) yes: bool,
}

/// `kvctl weight`.
#[derive(Args, Debug)]
pub(crate) struct Weight {
    /// Which machine
    #[arg(value_name = "MACHINE")]
    pub(crate) machine: Name,
    /// How many virtual peers it is to have; machines are started with 64
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WEIGHT)))]
    pub(crate) weight: u32,
    #[command(flatten)]
    pub(crate) how: How,
}

/// `kvctl recover`.
#[derive(Args, Debug)]
pub(crate) struct Recover {
    /// All machines that are lost for good
    #[arg(value_name = "MACHINE", required = true)]
    pub(crate) machines: Vec<Name>,
    /// Show what may be lost, and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do not ask
    #[arg(short, long, conflicts_with = "plan")]
    pub(crate) yes: bool,
}

/// How a change of the membership is made.
#[derive(Args, Debug)]
pub(crate) struct How {
    /// Show what would move, and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Return once the cluster has begun, and do not wait for the end
    #[arg(long, conflicts_with = "plan")]
    pub(crate) no_wait: bool,
    /// With --plan: for a cluster of these machines, and ask nobody
    #[arg(long, value_name = "IP[:PORT][@ZONE],...", value_delimiter = ',', requires = "plan")]
    pub(crate) machines: Vec<Imagined>,
    /// With --machines: positions of each on the ring [default: 1]
    #[arg(long, value_name = "N", requires = "machines")]
    pub(crate) virtual_peers: Option<u32>,
}

/// `kvctl certs`.
#[derive(Subcommand, Debug)]
pub(crate) enum Certs {
    /// Makes a cluster's authority: ca.pem and ca.key
    Init {
        /// Folder of certificates; made if absent
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Issues a certificate for a peer or a client
    Issue(Issue),
    /// Makes what is missing of these: the authority, certificates for peers and for clients
    Make(Make),
    /// Makes certificates in place of those there are; machines and clients that run take them within seconds
    Renew(Renew),
    /// Leaves only the newest authority in ca.pem, once nothing in the folder is an older one's
    Retire {
        /// Folder of certificates
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Lists the certificates of a folder
    Show {
        /// Folder of certificates
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// `kvctl certs issue`.
#[derive(Args, Debug)]
pub(crate) struct Issue {
    /// Folder with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// For the machine of this name
    #[arg(long, value_name = "IP[:PORT]", required_unless_present = "client", conflicts_with = "client")]
    pub(crate) peer: Option<Name>,
    /// For a client of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Option<String>,
}

/// `kvctl certs renew`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct Renew {
    /// Folder with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// That of the machine of this name
    #[arg(long, value_name = "IP[:PORT]", group = "what")]
    pub(crate) peer: Option<Name>,
    /// That of the client of this name
    #[arg(long, value_name = "NAME", group = "what")]
    pub(crate) client: Option<String>,
    /// All of the folder's machines and clients
    #[arg(long, group = "what")]
    pub(crate) all: bool,
    /// The authority: those before stay good beside it. Take the new ca.pem everywhere before you renew the others
    #[arg(long, group = "what")]
    pub(crate) authority: bool,
}

/// `kvctl certs make`.
#[derive(Args, Debug)]
pub(crate) struct Make {
    /// Folder of certificates; made if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// For the machines of these names
    #[arg(long, value_name = "IP[:PORT],...", value_delimiter = ',')]
    pub(crate) peer: Vec<Name>,
    /// For clients of these names
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) client: Vec<String>,
}

/// `kvctl bench`.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Operations under way at once; with --rate the most there may be
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: u32,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// Bytes of each value, such as 256 or 4KiB
    #[arg(long, value_name = "SIZE", default_value = "256", value_parser = units::size)]
    pub(crate) value_size: u64,
    /// Share of gets among the operations
    #[arg(long, value_name = "PERCENT", default_value = "50%", value_parser = percent)]
    pub(crate) reads: f64,
    /// Different keys, such as 100k
    #[arg(long, value_name = "N", default_value = "100k", value_parser = units::count)]
    pub(crate) keys: u64,
    /// Open loop: start so many a second whatever the cluster does, and measure from the intended start
    #[arg(long, value_name = "OPS/S", value_parser = some_rate)]
    pub(crate) rate: Option<u64>,
}

/// Runs the protocol's own code on simulated machines, in one thread: their clocks, disks, network and clients, and
/// what befalls them, all drawn from one seed.
///
/// Every key's history is judged (was it one register?), and so is what each machine says and keeps. In the end all is
/// healed, every key is tried, and all copies must be alike. Exit code 1: something did not hold; the seed meets it
/// again. The same seed gives the same digest, on any computer.
#[derive(Parser, Debug)]
#[command(name = "kvctl sim", bin_name = "kvctl sim", after_help = SIM_HELP.as_str())]
pub(crate) struct SimCli {
    /// Machines [default: 9]
    #[arg(long, value_name = "N")]
    pub(crate) peers: Option<usize>,
    #[command(flatten)]
    pub(crate) sim: Sim,
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `kvctl sim`; `--peers` means something else to all other commands.
#[derive(Args, Debug)]
pub(crate) struct Sim {
    /// Virtual time [default: 1]
    #[arg(long, value_name = "H")]
    pub(crate) hours: Option<f64>,
    /// Machines that join, leave, die for good or lose their disks, such as 60/h or 5/min [default: 0/h]
    #[arg(long, value_name = "N/h", value_parser = per_hour)]
    pub(crate) churn: Option<f64>,
    /// Keys, such as 10k [default: 1k]
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub(crate) keys: Option<u64>,
    /// Operations a second [default: 100]
    #[arg(long, value_name = "OPS/S")]
    pub(crate) rate: Option<f64>,
    /// By which a run is met again [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// What fails: some of those below, or usual, all, none, or swarm (what the seed draws) [default: usual]
    #[arg(long, value_name = "LIST")]
    pub(crate) faults: Option<ennead_sim::Faults>,
    /// All of that, and zones, disks, workloads, and what happens when, from a file of TOML; flags come before it
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    /// Draw how it went
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

static SIM_HELP: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::from("Faults (* are the usual ones):\n");
    for kind in ennead_sim::Kind::ALL {
        let (name, what) = kind.told();
        let usual = if ennead_sim::Kind::USUAL.contains(kind) { '*' } else { ' ' };
        text += &format!("  {name:<10}{usual} {what}\n");
    }
    text += SIM_EXAMPLES;
    for act in ennead_sim::Act::ALL {
        let (name, what) = act.told();
        text += &format!("  {name:<14} {what}\n");
    }
    text
});

const SIM_EXAMPLES: &str = "
Examples:
  kvctl sim --hours 24                               nine machines, an ordinary day
  kvctl sim --peers 1000 --hours 24 --churn 60/h --keys 10k --seed 7 --svg day.svg
  kvctl sim --faults crash,power,torn --json         nothing but crashes, for a program
  kvctl sim --scenario zones.toml --seed 8

A scenario, with what it may say and what is taken where it says nothing:
  peers = 9              hours = 1             seed = 1            keys = 1000
  churn = 0              faults = \"usual\"      # or [\"crash\", \"slow-disk\"]
  virtual_peers = 64     slots = 9
  [workload]             rate = 100, reads = 50, deletes = 5, compares = 10, expiring = 0 (of 100),
                         zipf = 0, hot_keys = 0 (the first so many), hot_share = 0 (they get, of 100),
                         value_size = 256
  [network]              delay_ms = 1, zones = 1, zone_delay_ms = 0, bandwidth = 0 (bytes a second),
                         distances = [] (or a row of milliseconds for each zone)
  [disk]                 sync_ms = 1, load_ms = 0.2
  [clock]                skew_s, jumps_a_day (as faults have it where nothing is said)
  [[at]]                 s = 60, do = \"kill\", machines = [3], for_s = 5; as often as you like

What an [[at]] can do, s seconds after the start; split takes clients, slow-disk times, clock by_s:
";

/// `60/h`, `5/min`, or a number an hour.
fn per_hour(text: &str) -> Result<f64, String> {
    let (number, per) = text.split_once('/').unwrap_or((text, "h"));
    let times = match per {
        "h" => 1.0,
        "min" | "m" => 60.0,
        "s" => 3_600.0,
        _ => return Err("a number an hour, such as 60/h, or 5/min".to_string()),
    };
    let number: f64 = number.parse().map_err(|_| "a number an hour, such as 60/h, or 5/min".to_string())?;
    Ok(number * times)
}

/// A time, and not none at all.
fn some_time(text: &str) -> Result<Duration, String> {
    match units::duration(text) {
        Ok(Duration::ZERO) => Err("a time above zero, such as 250ms, 2s, 10m".to_string()),
        other => other.map_err(|e| e.to_string()),
    }
}

fn some_count(text: &str) -> Result<u64, String> {
    match units::count(text) {
        Ok(0) => Err("a number above zero".to_string()),
        other => other.map_err(|e| e.to_string()),
    }
}

fn some_rate(text: &str) -> Result<u64, String> {
    match units::count(text) {
        Ok(0) => Err("a number above zero".to_string()),
        Ok(n) if n > 10_000_000 => Err("at most 10M a second".to_string()),
        other => other.map_err(|e| e.to_string()),
    }
}

/// `50%` or `50` as 0.5.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(n) if (0.0..=100.0).contains(&n) => Ok(n / 100.0),
        _ => Err("a share from 0% to 100%".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shares_are_percent() {
        assert_eq!(percent("50%"), Ok(0.5));
        assert_eq!(percent("100"), Ok(1.0));
        for wrong in ["", "%", "101%", "-1", "NaN", "half"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
