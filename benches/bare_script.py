"""The bare script that adit's block rate on regtest is held against: one template, two hashes on the
average, one submit, over and over, on one kept connection. It prints the blocks accepted a second.

usage: bare_script.py PORT USER:PASSWORD SECONDS
"""
import base64, hashlib, http.client, json, struct, sys, time

port, login, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
connection = http.client.HTTPConnection("127.0.0.1", port)
headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def call(method, *params):
    body = json.dumps({"id": 0, "method": method, "params": params})
    connection.request("POST", "/", body, headers)
    return json.loads(connection.getresponse().read())["result"]


def sha256d(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def height_push(height):
    if height <= 16:
        return bytes([0x50 + height, 0])
    number = height.to_bytes((height.bit_length() + 8) // 8, "little")
    return bytes([len(number)]) + number


def solve(template, extra):
    script = height_push(template["height"]) + b"\x08" + struct.pack("<Q", extra)
    commitment = bytes.fromhex(template["default_witness_commitment"])
    inputs = b"\x01" + bytes(32) + b"\xff" * 4 + bytes([len(script)]) + script + b"\xff" * 4
    outputs = b"\x02" + struct.pack("<Q", template["coinbasevalue"]) + b"\x01\x51"
    outputs += bytes(8) + bytes([len(commitment)]) + commitment
    root = sha256d(b"\x02\0\0\0" + inputs + outputs + bytes(4))
    witness = b"\x01\x20" + bytes(32)
    coinbase = b"\x02\0\0\0\0\x01" + inputs + outputs + witness + bytes(4)
    head = struct.pack("<I", template["version"]) + bytes.fromhex(template["previousblockhash"])[::-1]
    head += root + struct.pack("<I", template["curtime"]) + bytes.fromhex(template["bits"])[::-1]
    target, nonce = int(template["target"], 16), 0
    while int.from_bytes(sha256d(head + struct.pack("<I", nonce)), "little") > target:
        nonce += 1
    return (head + struct.pack("<I", nonce) + b"\x01" + coinbase).hex()


begun, accepted = time.monotonic(), 0
while time.monotonic() - begun < seconds:
    block = solve(call("getblocktemplate", {"rules": ["segwit", "signet"]}), accepted)
    answer = call("submitblock", block)
    assert answer is None, answer
    accepted += 1
print(accepted / (time.monotonic() - begun))
