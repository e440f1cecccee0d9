"""A client in another language, made from the .proto files alone: an account, a group, a manifest, and a piece from a peer.

    interop.py PROTO_DIR WORK_DIR CA_PEM TRACKER_ADDRESS OWNER PASSWORD GROUP FILE

OWNER owns GROUP, where a peer shares FILE. Needs grpcio and grpcio-tools, and openssl for a key and a certificate request.
"""

import hashlib
import pathlib
import subprocess
import sys

import grpc
from grpc_tools import protoc

protos, work, ca_file, tracker, owner, owner_password, group, name = sys.argv[1:]
work = pathlib.Path(work)
work.mkdir(parents=True, exist_ok=True)

import importlib.resources

well_known = str(importlib.resources.files("grpc_tools") / "_proto")
sources = sorted(str(path) for path in pathlib.Path(protos).rglob("*.proto"))
args = ["protoc", f"-I{protos}", f"-I{well_known}", f"--python_out={work}", f"--grpc_python_out={work}", *sources]
if protoc.main(args) != 0:
    sys.exit("the .proto files do not compile")
sys.path.insert(0, str(work))

from minitorrent.v1 import auth_pb2, auth_pb2_grpc, file_pb2, file_pb2_grpc, group_pb2, group_pb2_grpc  # noqa: E402
from minitorrent.v1 import peer_pb2, peer_pb2_grpc, swarm_pb2, swarm_pb2_grpc  # noqa: E402

ca = pathlib.Path(ca_file).read_bytes()
channel = grpc.secure_channel(tracker, grpc.ssl_channel_credentials(ca))
auth = auth_pb2_grpc.AuthServiceStub(channel)
groups = group_pb2_grpc.GroupServiceStub(channel)
files = file_pb2_grpc.FileServiceStub(channel)
swarm = swarm_pb2_grpc.SwarmServiceStub(channel)


def session(user, password):
    """Logs in and returns the metadata of the new session."""
    token = auth.Login(auth_pb2.LoginRequest(username=user, password=password), timeout=10).session_token
    return (("authorization", f"Bearer {token}"),)


def check(what, holds):
    if not holds:
        sys.exit(f"not so: {what}")
    print(f"  {what}")


password = "an-account-made-in-python"
auth.CreateUser(auth_pb2.CreateUserRequest(username="pythia", password=password), timeout=10)
me = session("pythia", password)
check("who am I: pythia", auth.WhoAmI(auth_pb2.WhoAmIRequest(), metadata=me, timeout=10).username == "pythia")

try:
    files.ListFiles(file_pb2.ListFilesRequest(group_id=group), metadata=me, timeout=10)
    sys.exit("a stranger saw the group's files")
except grpc.RpcError as error:
    check("a stranger is turned away", error.code() == grpc.StatusCode.PERMISSION_DENIED)

groups.JoinGroup(group_pb2.JoinGroupRequest(group_id=group), metadata=me, timeout=10)
accept = group_pb2.AcceptJoinRequestRequest(group_id=group, username="pythia")
groups.AcceptJoinRequest(accept, metadata=session(owner, owner_password), timeout=10)

listed = files.ListFiles(file_pb2.ListFilesRequest(group_id=group), metadata=me, timeout=10).files
found = next(file for file in listed if file.header.name == name)
check(f"{name} is listed, {found.header.length} bytes", found.header.length > 0)

hashes = b""
for frame in files.GetManifest(file_pb2.GetManifestRequest(group_id=group, name=name), metadata=me, timeout=30):
    hashes += frame.pieces.sha1
pieces = -(-found.header.length // found.header.piece_length)
check(f"the manifest has {pieces} pieces", len(hashes) == 20 * pieces)

key, request = work / "key.pem", work / "request.der"
subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=x", "-outform", "DER", "-out", request], check=True)
issued = auth.IssuePeerCert(auth_pb2.IssuePeerCertRequest(csr_der=request.read_bytes()), metadata=me, timeout=10)

ref = swarm_pb2.FileRef(group_id=group, file_id=found.file_id)
tickets = swarm.IssueTickets(
    swarm_pb2.IssueTicketsRequest(peer_id=issued.peer_id, files=[ref]), metadata=me, timeout=10
).tickets
sources = swarm.FindPeers(swarm_pb2.FindPeersRequest(group_id=group, name=name), metadata=me, timeout=10).sources
check(f"{len(sources)} source(s)", len(sources) > 0)

peer = sources[0].peer
mutual = grpc.ssl_channel_credentials(ca, key.read_bytes(), issued.certificate_pem.encode())
options = [("grpc.ssl_target_name_override", peer.tls_name), ("grpc.max_receive_message_length", 1 << 20)]
with grpc.secure_channel(peer.addresses[0], mutual, options) as channel:
    stub = peer_pb2_grpc.PeerServiceStub(channel)
    last = pieces - 1
    ask = peer_pb2.GetChunkRequest(ticket=tickets[0].ticket, file_id=found.file_id, pieces=[0, last], in_order=True)
    got = {}
    for chunk in stub.GetChunk(ask, timeout=30):
        if chunk.queue_place:
            continue
        data = got.setdefault(chunk.piece_index, bytearray())
        check(f"piece {chunk.piece_index}, {len(chunk.data)} bytes from {chunk.offset}", chunk.offset == len(data))
        data += chunk.data
for piece in {0, last}:
    right = hashlib.sha1(got[piece]).digest() == hashes[20 * piece : 20 * piece + 20]
    check(f"piece {piece} has the SHA-1 of the manifest", right)
