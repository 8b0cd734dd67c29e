//! The user that a service runs as, and what that user may do with a file.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ROOT: u32 = 0;

/// Where a file has rights beside those of its mode (acl(5)).
const ACCESS_LIST: &str = "system.posix_acl_access";

/// The user that a service runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct User {
    pub(in crate::cli) id: u32,
    pub(in crate::cli) group: u32,
    /// The groups beside.
    pub(in crate::cli) others: Vec<u32>,
}

/// What somebody wants of a file or a directory, in the bits of a mode.
#[derive(Clone, Copy)]
pub(in crate::cli) enum Wanted {
    /// To read the file.
    Read = 0o4,
    /// To make files in the directory.
    Make = 0o3,
    /// To go through the directory.
    Pass = 0o1,
}

impl User {
    /// The one that `passwd` and `groups`, the texts of these files, know by this name or number.
    pub(super) fn known(name: &str, passwd: &str, groups: &str) -> Option<Self> {
        let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields =
            users.find(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name))?;
        let (id, group) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        let is_member = |members: &str| members.split(',').any(|member| member == fields[0]);
        let others = groups.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            is_member(fields.get(3)?).then(|| fields.get(2)?.parse().ok())?
        });
        Some(Self { id, group, others: others.collect() })
    }

    /// What keeps this user from `path`: the first directory on the way that cannot be gone through, or the file
    /// itself. `None` where nothing does; also where that cannot be told, as of what is not there.
    pub(in crate::cli) fn obstacle(&self, path: &Path, wanted: Wanted) -> Option<PathBuf> {
        let (shown, real) = (std::path::absolute(path).ok()?, fs::canonicalize(path).ok()?);
        let way = |path: &Path| {
            let mut way: Vec<_> = path.ancestors().skip(1).map(Path::to_owned).collect();
            way.reverse();
            way
        };
        let way = way(&shown).into_iter().chain(way(&real)).map(|dir| (dir, Wanted::Pass));
        let mut all = way.chain([(real.clone(), wanted)]);
        all.find(|(path, wanted)| self.may(path, *wanted) == Some(false)).map(|(path, _)| path)
    }

    /// By owner, group and mode; `None` where these do not decide.
    fn may(&self, path: &Path, wanted: Wanted) -> Option<bool> {
        if self.id == ROOT {
            return Some(true);
        }
        let metadata = fs::metadata(path).ok()?;
        let wanted = wanted as u32;
        let is_allowed = self.bits(&metadata) & wanted == wanted;
        (is_allowed || !has_access_list(path)).then_some(is_allowed)
    }

    fn bits(&self, metadata: &Metadata) -> u32 {
        let is_of = |group| self.group == group || self.others.contains(&group);
        match metadata {
            file if file.uid() == self.id => file.mode() >> 6,
            file if is_of(file.gid()) => file.mode() >> 3,
            file => file.mode(),
        }
    }
}

fn has_access_list(path: &Path) -> bool {
    let mut nothing: [u8; 0] = [];
    rustix::fs::getxattr(path, ACCESS_LIST, &mut nothing).is_ok()
}

/// The number of the group that `groups`, the text of that file, knows by this name or number.
pub(super) fn group_of(name: &str, groups: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields =
        lines.find(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name))?;
    fields.get(2)?.parse().ok()
}

/// What this machine knows of its users, and of their groups.
///
/// # Errors
/// If it cannot be read.
pub(super) fn of_this_machine() -> io::Result<(String, String)> {
    Ok((fs::read_to_string("/etc/passwd")?, fs::read_to_string("/etc/group")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\niot-ingestor-2:x:7:8::/:/bin/sh\n\
        iot-ingestor:x:998:997:IoT:/var/lib/iot-ingestor:/usr/sbin/nologin\n";
    const GROUPS: &str =
        "root:x:0:\nssl-cert:x:110:postgres,iot-ingestor\niot-ingestor:x:997:\nno line\n";

    #[test]
    fn a_user_is_the_one_of_that_name_with_the_groups_that_list_it() {
        let user = User { id: 998, group: 997, others: vec![110] };
        assert_eq!(User::known("iot-ingestor", PASSWD, GROUPS), Some(user.clone()));
        assert_eq!(User::known("998", PASSWD, GROUPS), Some(user));
        assert_eq!(User::known("iot", PASSWD, GROUPS), None);
        assert_eq!(User::known("iot-ingestor", "iot-ingestor:x\n", GROUPS), None);
        assert_eq!(group_of("ssl-cert", GROUPS), Some(110));
    }

    #[test]
    fn owner_group_and_others_have_the_rights_of_the_mode_and_of_the_way_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        fs::write(&file, "").unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let (owner, group) = (metadata.uid(), metadata.gid());
        // None of the three is root.
        let user = |id, group, others| User { id, group, others };
        let (other_user, other_group) = (owner + 1, group + 1);
        let stranger = user(other_user, other_group, vec![]);
        let member = user(other_user, other_group, vec![group]);
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(dir.path(), 0o755);
        for (mode, member_may, stranger_may) in
            [(0o604, false, true), (0o640, true, false), (0o600, false, false)]
        {
            set(&file, mode);
            for (user, may) in [(&member, member_may), (&stranger, stranger_may)] {
                let expected = (!may).then(|| file.clone());
                assert_eq!(user.obstacle(&file, Wanted::Read), expected, "{mode:o} {user:?}");
            }
        }
        set(&file, 0o644);
        set(dir.path(), 0o750);
        assert_eq!(stranger.obstacle(&file, Wanted::Read).as_deref(), Some(dir.path()));
        assert_eq!(member.obstacle(&file, Wanted::Read), None);
        assert_eq!(member.obstacle(dir.path(), Wanted::Make).as_deref(), Some(dir.path()));
        assert_eq!(user(ROOT, ROOT, vec![]).obstacle(&file, Wanted::Read), None);
        assert_eq!(stranger.obstacle(&dir.path().join("gone"), Wanted::Read), None);
    }
}
