//! Commands besides `up`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};

use crate::{Address, KeysCommand, RuntimeCommand, Source, Status, access_keys, client, status};

/// The lines a user pastes to point AWS tools at the server.
pub fn exports(address: &Address, port: u16) -> String {
    let host = reachable(address.listen);
    let (key, secret) = if address.listen.is_loopback() { ("test", "test") } else { ("KEY-ID", "SECRET") };
    let mut lines = format!("export AWS_ENDPOINT_URL=http://{}\n", SocketAddr::new(host, port));
    lines.push_str("export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1\n");
    lines.push_str(&format!("export AWS_ACCESS_KEY_ID={key} AWS_SECRET_ACCESS_KEY={secret}\n"));
    if !address.listen.is_loopback() {
        lines.push_str("# put a key of `ondol keys create` in place of KEY-ID and SECRET\n");
    }
    lines
}

/// An address to connect to, for one to listen on.
pub fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(address) if address.is_unspecified() => [127, 0, 0, 1].into(),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        address => address,
    }
}

pub fn env(address: &Address) -> Result<()> {
    if address.port == 0 {
        bail!("port 0 is a free port chosen at start; give the port the server printed");
    }
    print!("{}", exports(address, address.port));
    Ok(())
}

pub fn status(arguments: &Status) -> Result<()> {
    let address = &arguments.address;
    let variable = |name| std::env::var(name).ok();
    let key = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(key), Some(secret)) => (key, secret),
        _ if address.listen.is_loopback() => ("test".into(), "test".into()),
        _ => match access_keys::any(&address.data_dir) {
            Some(key) => key,
            None => bail!(
                "no access key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or make one with `ondol keys create`"
            ),
        },
    };
    let server = SocketAddr::new(reachable(address.listen), address.port);
    let page = client::get(server, "/_ondol/status", (&key.0, &key.1))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&page)?);
    } else {
        print!("{}", status::text(&page));
    }
    Ok(())
}

pub fn keys(command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Create(address) => {
            let (id, secret) = access_keys::create(&address.data_dir)?;
            println!("export AWS_ACCESS_KEY_ID={id}\nexport AWS_SECRET_ACCESS_KEY={secret}");
            eprintln!("The secret is shown only now.");
        }
        KeysCommand::List(address) => {
            access_keys::list(&address.data_dir)?.iter().for_each(|id| println!("{id}"));
        }
        KeysCommand::Delete { access_key_id, address } => {
            access_keys::delete(&address.data_dir, &access_key_id)?;
        }
    }
    Ok(())
}

pub fn runtime(command: RuntimeCommand) -> Result<()> {
    match command {
        RuntimeCommand::Install { runtimes, source, runtime_dir } => {
            if !rustix::process::geteuid().is_root() {
                return Err(ondol_runtimes::InstallError::NotRoot.into());
            }
            let folder = runtime_dir.unwrap_or_else(ondol_runtimes::default_folder);
            let source = match source {
                Source::Debian => ondol_runtimes::Source::Debian,
                Source::Host => ondol_runtimes::Source::Host,
            };
            ondol_runtimes::install(&folder, &runtimes, source, &mut |line| eprintln!("{line}"))?;
        }
        RuntimeCommand::List { runtime_dir, json } => {
            let folder = runtime_dir.unwrap_or_else(ondol_runtimes::default_folder);
            let runtimes = ondol_runtimes::Runtime::all(&folder);
            if json {
                println!("{}", serde_json::to_string_pretty(&runtimes)?);
            } else if runtimes.is_empty() {
                println!(
                    "no runtime is installed in {}; install one with: ondol runtime install python3.13",
                    folder.display()
                );
            } else {
                for runtime in runtimes {
                    println!("{:<18} {}", runtime.name, runtime.description);
                }
            }
        }
    }
    Ok(())
}
