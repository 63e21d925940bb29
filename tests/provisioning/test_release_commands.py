"""`provision release` as people type it: a ceremony of several, a release, and everything that can be typed wrongly."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hardware.virtual_board.esp_image import micropython, token_image
from provisioning import release_keys
from provisioning.release_keys import make_key, read_card
from tests.releases import small_sources

Ended = tuple[int, str, str]
Command = Callable[[str], Ended]
PASSPHRASE = "four random words here"


@pytest.fixture
def desk(provision: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in a folder with the server's public keys and a small firmware."""
    monkeypatch.setenv("PROVISION_KEY_PASSPHRASE", PASSPHRASE)
    monkeypatch.setattr(release_keys, "COST", 1 << 10)  # whom these keys are of nobody guesses
    cards = {role: make_key("ecdsa", role)[0].content() for role in ("snapshot", "timestamp")}
    (tmp_path / "server.json").write_text(json.dumps(cards))
    small_sources(tmp_path / "sources")
    return provision


def _done(ended: Ended) -> str:
    code, out, err = ended
    assert code == 0, err
    return out


_INIT = (
    "release root init --root-key anna.pub --root-key bert.pub --targets-key cora.pub"
    " --release-key dora.pub --online server.json --model tree-3"
)
_BUILD = "release build --version 0.7.0 --counter 7 --support-until 2031-12-31 --sources sources --model tree-3 --date 1790000000"


def test_a_ceremony_of_three_people_and_their_first_release(desk: Command, tmp_path: Path) -> None:
    for holder, kind in (
        ("anna", "ed25519"),
        ("bert", "ecdsa"),
        ("cora", "ecdsa"),
        ("dora", "ecdsa"),
    ):
        _done(desk(f"release keygen {holder} --type {kind}"))
    assert stat.S_IMODE((tmp_path / "anna.key").stat().st_mode) == 0o600
    assert b"ENCRYPTED" in (tmp_path / "anna.key").read_bytes()
    assert json.loads(_done(desk(f"{_INIT} --json")))["drafts"][0]["missing"] == 2
    code, _, err = desk("release sign 0.7.0 --key dora.pub")
    assert (code, "is not signed yet" in err) == (2, True)
    for holder in ("cora", "anna"):
        _done(desk(f"release root sign --key {holder}.pub --yes"))
    told = _done(desk("release root status"))
    assert "signed by anna" in told
    assert "1 more of bert" in told
    assert "nothing missing; it waits for what stands above it" in told
    code, out, err = desk("release root sign --key bert.key --json")
    assert json.loads(out) == {
        "event": "status",
        "signed": {"root": [1], "targets": [1]},
        "drafts": [],
    }
    assert "+ root: bert" in err, "what is signed is shown first"
    told = json.loads(_done(desk(f"{_BUILD} --json")))
    assert (told["files"], told["models"]) == (2, ["tree-3"])
    assert "tree-3 1 is signed." in _done(desk("release sign 0.7.0 --key dora.pub"))
    told = json.loads(_done(desk("release verify --json")))
    assert [(one["model"], one["counter"]) for one in told["releases"]] == [("tree-3", 7)]
    _done(desk("release root threshold tree-3 1"))
    _done(desk("release root discard targets"))
    told = _done(desk("release root replace root bert dora.pub"))
    assert "- root: bert" in told
    assert "+ root: dora" in told
    assert (
        json.loads(_done(desk("release root sign --key anna.pub --json")))["drafts"][0]["missing"]
        == 1
    )
    assert "signs for tree-3 already" in desk("release root add tree-3 dora.pub")[2]
    (tmp_path / "releases/metadata/1.tree-3.json").write_text("{}")
    code, out, err = desk("release verify")
    assert (code, out, err) == (1, "", "provision: tree-3 is no TUF metadata.\n")


def test_two_who_build_the_same_get_the_same_and_see_when_not(
    desk: Command, tmp_path: Path
) -> None:
    _trial(desk)
    _done(desk(_BUILD))
    _done(desk("release sign 0.7.0 --key keys/releases.pub"))
    _done(desk(f"{_BUILD} --folder second"))
    same = tmp_path / "second/built/tree-3/0.7.0.cbor"
    assert same.read_bytes() == (tmp_path / "releases/built/tree-3/0.7.0.cbor").read_bytes()
    _done(desk(f"release verify --manifest {same}"))
    (tmp_path / "sources/node/cycle.py").write_text("def run():\n    return 2\n")
    _done(desk(f"{_BUILD} --folder second"))
    code, _, err = desk(f"release verify --manifest {same}")
    assert (code, "other sources, date, counter or notes" in err) == (1, True)
    told = _done(desk("release sign 0.7.0 --key keys/releases.pub --withdraw --model tree-3"))
    assert "tree-3 2 is signed." in told
    assert json.loads(_done(desk("release verify --json")))["releases"] == []


def _trial(desk: Command) -> None:
    told = json.loads(_done(desk("release root trial --keys keys --online server.json --json")))
    assert told["signed"] == {"root": [1], "targets": [1]}


def test_a_release_that_brings_a_micropython_says_so_and_is_checked_to_its_end(
    desk: Command, tmp_path: Path
) -> None:
    _trial(desk)
    image = micropython("1.28.0", more=bytes(5_000))
    (tmp_path / "new.app-bin").write_bytes(image)
    out = _done(desk(f"{_BUILD} --image new.app-bin"))
    assert f"It brings MicroPython 1.28.0, {len(image)} bytes." in out
    assert "not on hardware" in out
    built = json.loads(_done(desk(f"{_BUILD} --image new.app-bin --json")))
    sha256 = hashlib.sha256(image).hexdigest()
    assert built["image"] == {"micropython": "1.28.0", "bytes": len(image), "sha256": sha256}
    _done(desk("release sign 0.7.0 --key keys/releases.pub"))
    _done(desk("release verify"))
    (tmp_path / "releases/targets/files" / sha256).write_bytes(image[:-1])
    code, _, err = desk("release verify")
    assert (code, "image of tree-3/0.7.0.cbor is not the file that was signed" in err) == (1, True)


def test_a_key_elsewhere_signs_by_its_address(desk: Command, tmp_path: Path) -> None:
    """Any signer of securesystemslib; here its own file signer, as a token or a key service would be."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "token.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (tmp_path / "token.pub.pem").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    _done(desk("release keygen token --uri file2:token.pem --public-key token.pub.pem"))
    assert not (tmp_path / "token.key").exists()
    _trial(desk)
    _done(desk("release root add tree-3 token.pub"))
    _done(desk("release root sign --key keys/targets.pub --yes"))
    _done(desk(_BUILD))
    assert "tree-3 1 is signed." in _done(desk("release sign 0.7.0 --key token.pub"))
    (tmp_path / "token.pem").unlink()
    code, _, err = desk("release root renew tree-3")
    assert code == 0, err
    code, _, err = desk("release root sign --key token.pub --yes")
    assert code == 1
    assert "The key of token at file2:token.pem cannot be used" in err


def test_everything_typed_wrongly_is_one_sentence(
    desk: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trial(desk)
    (tmp_path / "garbage").write_text("\0garbage = [[[")
    (tmp_path / "garbage.pub").write_text('{"keyid": 1, "key": []}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "s3.bin").write_bytes(micropython("1.28.0", chip_id=9))
    (tmp_path / "old.bin").write_bytes(micropython("1.20.0"))
    (tmp_path / "long.bin").write_bytes(micropython("1.28.0", more=bytes(0x180000)))
    (tmp_path / "merged.bin").write_bytes(token_image() + micropython("1.28.0"))
    for typed, code, said in (
        ("release keygen ''", 2, "cannot name a key"),
        ("release keygen ../anna", 2, "cannot name a key"),
        ("release keygen anna --public-key garbage", 2, "--public-key goes with --uri"),
        ("release keygen anna --uri hsm:two", 2, "names no key in a token, like hsm:2"),
        ("release keygen anna --uri gcpkms:x", 2, "give --public-key, too"),
        ("release keygen anna --uri hsm:2 --public-key nowhere", 2, "nowhere cannot be read"),
        ("release keygen anna --uri telepathy:x --public-key garbage", 2, "is no signer's address"),
        ("release keygen anna --uri hsm:2 --public-key garbage", 2, "no public key in PEM"),
        ("release keygen targets --keys keys", 1, "is there already"),
        ("release build --version ../x --counter 1 --support-until 2031-12-31", 2, "cannot name a release"),
        ("release build --version 1 --counter 0 --support-until 2031-12-31", 2, "not in the range"),
        ("release build --version 1 --counter 1 --support-until soon", 2, "does not match the format"),
        ("release build --version 1 --counter 1 --support-until 2031-12-31 --model nothing", 1, "nothing"),
        ("release build --version 1 --counter 1 --support-until 2031-12-31 --sources empty", 1, "There is no firmware in empty"),
        (f"{_BUILD} --notes {'x' * 501}", 2, "500 bytes"),
        (f"{_BUILD} --image nowhere.bin", 2, "The image nowhere.bin cannot be read"),
        (f"{_BUILD} --image garbage", 2, "The MicroPython image does not begin as"),
        (f"{_BUILD} --image s3.bin", 2, "is for esp32s3; this node model has an esp32"),
        (f"{_BUILD} --image old.bin", 2, "brings MicroPython 1.20.0, but its files need 1.27.0"),
        (f"{_BUILD} --image long.bin", 2, "a node's app partition holds 1572864"),
        (f"{_BUILD} --image merged.bin", 2, "goes on after the image's end; take the .app-bin file"),
        ("release sign 9.9.9 --key keys/releases.pub", 2, "No release 9.9.9 was built"),
        ("release sign 9.9.9 --key nowhere.pub", 2, "There is no key card nowhere.pub"),
        ("release sign 9.9.9 --key garbage", 2, "garbage is no key card"),
        ("release sign 9.9.9 --key garbage.pub", 2, "garbage.pub is no key card"),
        ("release sign 9.9.9 --key keys/releases.pub --withdraw", 2, "Say with --model"),
        ("release sign 9.9.9 --key keys/releases.pub --withdraw --model tree-3", 2, "There is no signed release 9.9.9"),
        ("release verify --folder nowhere", 2, "There is no repository in nowhere"),
        ("release root status --folder nowhere", 2, "There is no repository in nowhere"),
        ("release root sign --key keys/releases.pub --yes", 1, "signs nothing here: what waits is nothing"),
        ("release root remove root nobody", 2, "names no key of root"),
        ("release root threshold root 1", 2, "2 at least are asked of a root"),
        ("release root renew nobody", 2, "Nothing of nobody is signed yet"),
        ("release root discard tree-3", 2, "No draft of tree-3 waits"),
        ("release root online garbage", 2, "does not hold the server's keys"),
        ("release root online old.json", 2, "does not hold the server's keys"),
        ("release root init --root-key keys/targets.pub --targets-key keys/targets.pub --release-key keys/targets.pub --online server.json", 2, "There is a repository"),
        ("release root init --folder new --root-key keys/targets.pub --targets-key keys/targets.pub --release-key keys/targets.pub --online server.json", 2, "2 signatures are wanted of 1 keys"),
    ):  # fmt: skip
        ended, out, err = desk(typed)
        assert (ended, out) == (code, ""), (typed, err)
        assert said in err, (typed, err)
    monkeypatch.setenv("PROVISION_KEY_PASSPHRASE", "short")
    assert "at least 12 characters" in desk("release keygen anna")[2]
    _done(desk("release root renew targets"))
    monkeypatch.setenv("PROVISION_KEY_PASSPHRASE", "another four words")
    code, _, err = desk("release root sign --key keys/targets.pub --yes")
    assert (code, "does not open with this passphrase" in err) == (1, True)
    assert read_card(tmp_path / "keys/targets.key").holder == "targets"


# ---------------------------------------------------------------------------------------------------------------- tokens

_LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so")
PIN, LABEL = "four random words", "Release Token"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A token with a P-256 key of id 2 and one of P-384 of id 3; its library. A process loads that once, so they share it."""
    program = shutil.which("softhsm2-util")
    library = next((path for path in _LIBRARIES if Path(path).exists()), None)
    if program is None or library is None:
        pytest.skip("SoftHSM is not installed")
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        patch.setenv("PYKCS11LIB", library)
        made = [program, "--init-token", "--free", "--label", LABEL, "--so-pin", "0" * 8]
        subprocess.run([*made, "--pin", PIN], check=True, capture_output=True, timeout=30)
        _make_keys(library)
        yield library


def _make_keys(library: str) -> None:
    """As the token's maker's program would."""
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    found = pkcs11.lib(library).get_token(token_label=LABEL)
    with found.open(rw=True, user_pin=PIN) as session:
        for number, curve in ((2, "secp256r1"), (3, "secp384r1")):
            named = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
            parameters = session.create_domain_parameters(pkcs11.KeyType.EC, named, local=True)
            parameters.generate_keypair(store=True, id=bytes([number]), label=f"key {number}")


@pytest.fixture
def signing(desk: Command, token: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A desk whose passphrases are the token's PIN."""
    monkeypatch.setenv("PROVISION_KEY_PASSPHRASE", PIN)
    return desk


@pytest.mark.needs_softhsm
def test_a_release_is_signed_by_a_key_that_never_leaves_its_token(
    signing: Command, tmp_path: Path
) -> None:
    told = _done(signing("release keygen dora --uri hsm:2?label=Release+Token"))
    assert "is the card to give away" in told
    assert not (tmp_path / "dora.key").exists()
    assert read_card(tmp_path / "dora.pub").uri == "hsm:2?label=Release+Token"
    _trial(signing)
    _done(signing("release root add tree-3 dora.pub"))
    _done(signing("release root sign --key keys/targets.pub --yes"))
    _done(signing(_BUILD))
    assert "tree-3 1 is signed." in _done(signing("release sign 0.7.0 --key dora.pub"))
    assert "are as nodes want them" in _done(signing("release verify"))


@pytest.mark.needs_softhsm
def test_a_token_alone_is_found_without_its_label(signing: Command, tmp_path: Path) -> None:
    _done(signing("release keygen dora --uri hsm:2"))
    assert read_card(tmp_path / "dora.pub").uri == "hsm:2?label=Release+Token"


@pytest.mark.needs_softhsm
@pytest.mark.parametrize(
    ("uri", "code", "said"),
    [
        ("hsm:9", 1, "could not find ECDSA key on the PKCS#11 token"),
        ("hsm:3", 2, "ecdsa-sha2-nistp384; nodes verify"),
        ("hsm:2?label=Nobody", 1, "No PKCS#11 token found for label Nobody"),
    ],
)
def test_a_token_without_such_a_key_is_one_sentence(
    signing: Command, tmp_path: Path, uri: str, code: int, said: str
) -> None:
    ended, out, err = signing(f"release keygen dora --uri {uri}")
    assert (ended, out) == (code, ""), err
    assert said in err
    assert not (tmp_path / "dora.pub").exists()


@pytest.mark.needs_softhsm
def test_a_wrong_pin_signs_nothing(
    signing: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _done(signing("release keygen dora --uri hsm:2"))
    _trial(signing)
    _done(signing("release root add tree-3 dora.pub"))
    _done(signing("release root sign --key keys/targets.pub --yes"))
    _done(signing(_BUILD))
    monkeypatch.setenv("PROVISION_KEY_PASSPHRASE", "another four words")
    code, _, err = signing("release sign 0.7.0 --key dora.pub")
    assert (code, "The key of dora did not sign: pin incorrect." in err) == (1, True), err


@pytest.mark.needs_softhsm
def test_without_a_library_of_the_token_that_is_said(
    signing: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYKCS11LIB")
    code, _, err = signing("release keygen dora --uri hsm:2")
    assert (code, "PYKCS11LIB environment variable must be set" in err) == (1, True)
