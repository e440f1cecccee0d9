"""One libtorrent peer for `cargo xtask bench`: TORRENT DIR PORT MARKER. Creates MARKER when it has the file. Seeds until killed."""

import sys
import time

import libtorrent

torrent, directory, port, marker = sys.argv[1:5]
session = libtorrent.session({
    "listen_interfaces": f"0.0.0.0:{port}",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "alert_mask": libtorrent.alert.category_t.status_notification,
    "allow_multiple_connections_per_ip": True,
})
params = libtorrent.add_torrent_params()
params.ti = libtorrent.torrent_info(torrent)
params.save_path = directory
if len(sys.argv) > 5:
    params.flags |= libtorrent.torrent_flags.seed_mode
handle = session.add_torrent(params)
while True:
    session.wait_for_alert(1000)
    session.pop_alerts()
    if handle.status().is_seeding:
        break
open(marker, "w").close()
while True:
    time.sleep(1)
