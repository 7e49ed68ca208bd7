//! What a server says about itself in `INFO`, as facts. Pure.

use super::state::{Follower, Role, Server};

/// The fields of all sections, with their values.
pub fn fields(info: &str) -> impl Iterator<Item = (&str, &str)> {
    info.lines()
        .filter_map(|line| line.trim_end().split_once(':'))
}

/// Reads the sections `server`, `persistence`, `replication` and `memory`; `synced` is left to
/// the one who watches.
pub fn read(info: &str) -> Server {
    let mut server = Server::default();
    let (mut host, mut replica_offset, mut port) = (None, None, None);
    for (name, value) in fields(info) {
        match name {
            "redis_version" if server.version.is_empty() => value.clone_into(&mut server.version),
            "valkey_version" => value.clone_into(&mut server.version),
            "run_id" => value.clone_into(&mut server.run_id),
            "loading" => server.loading = value == "1",
            "aof_rewrite_in_progress" | "aof_rewrite_scheduled" => server.rewriting |= value == "1",
            "role" => {
                server.role = match value {
                    "master" | "primary" => Some(Role::Primary),
                    "slave" | "replica" => Some(Role::Replica),
                    _ => None,
                }
            }
            "master_host" => host = Some(value.to_owned()),
            "master_port" => port = value.parse::<u16>().ok(),
            "master_link_status" => server.link_up = value == "up",
            "master_last_io_seconds_ago" => {
                server.link_silence = value.parse().ok().filter(|ago| *ago >= 0);
            }
            "master_replid" => value.clone_into(&mut server.replication_id),
            "master_replid2" => value.clone_into(&mut server.replication_id2),
            "master_repl_offset" => server.offset = value.parse().unwrap_or(0),
            "slave_repl_offset" => replica_offset = value.parse().ok(),
            "used_memory" => server.used_memory = value.parse().unwrap_or(0),
            "maxmemory" => server.max_memory = value.parse().unwrap_or(0),
            _ => server.replicas.extend(follower(name, value)),
        }
    }
    if server.role == Some(Role::Replica) {
        server.primary = host;
        server.offset = replica_offset.unwrap_or(server.offset);
        // `port` is the same for all servers of a shard.
        let _ = port;
    }
    server
}

/// `slave0:ip=…,port=…,state=online,offset=…,lag=…`
fn follower(name: &str, value: &str) -> Option<Follower> {
    let number = name
        .strip_prefix("slave")
        .or(name.strip_prefix("replica"))?;
    number.parse::<u32>().ok()?;
    let mut follower = Follower::default();
    for field in value.split(',') {
        match field.split_once('=')? {
            ("ip", ip) => ip.clone_into(&mut follower.address),
            ("state", state) => follower.online = state == "online",
            ("offset", offset) => follower.offset = offset.parse().unwrap_or(0),
            ("lag", lag) => follower.lag = lag.parse().unwrap_or(0),
            _ => {}
        }
    }
    Some(follower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_names_its_replicas() {
        let info = "redis_version:7.0.15\r\nrole:master\r\nloading:0\r\nconnected_slaves:1\r\n\
                    slave0:ip=s1.x,port=6379,state=online,offset=140,lag=1\r\nmaster_replid:aa\r\n\
                    master_replid2:bb\r\nmaster_repl_offset:150\r\nslave_read_repl_offset:1\r\n";
        let read = read(info);
        assert_eq!(read.role, Some(Role::Primary));
        assert_eq!((read.offset, read.version.as_str()), (150, "7.0.15"));
        let follower = Follower {
            address: "s1.x".to_owned(),
            online: true,
            offset: 140,
            lag: 1,
        };
        assert_eq!(read.replicas, [follower]);
    }

    #[test]
    fn a_replica_names_its_primary_and_its_own_offset() {
        let info = "redis_version:7.2.4\r\nvalkey_version:8.1.1\r\nrole:slave\r\nmaster_host:s0\r\n\
                    master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\n\
                    slave_repl_offset:99\r\nmaster_repl_offset:120\r\nloading:1\r\n";
        let read = read(info);
        assert_eq!(read.primary.as_deref(), Some("s0"));
        assert_eq!(
            (read.offset, read.link_up, read.link_silence),
            (99, false, None)
        );
        assert_eq!((read.loading, read.version.as_str()), (true, "8.1.1"));
    }
}
