"""What a run uploads, to a stand-in for the hub on this machine."""

import base64
import json
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import processes
import pytest

from arccse_hf.errors import UserError
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.checkpoints import check_checkpoint
from arccse_hf.training.hub import push_exported

# The library reads where the hub is when it is imported.
ONLINE = """
import os
from huggingface_hub import constants
from arccse_hf.__main__ import main
constants.ENDPOINT, constants.HF_HUB_OFFLINE = os.environ["HF_ENDPOINT"], False
main()
"""


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that creating a repository and committing files to it takes."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        url = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            name = json.loads(body)["name"].split("/")[-1]
            answer = {"url": f"{url}/somebody/{name}", "id": f"somebody/{name}", "name": f"somebody/{name}"}
        elif self.path == "/api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            answer = {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            self.server.commits.append((self.path, lines[0]["value"]["summary"], files))
            commit = f"{len(self.server.commits):040}"
            answer = {"commitOid": commit, "commitUrl": f"{url}/somebody/model/commit/{commit}", "success": True}
        else:
            self.send_error(404)
            return
        self._send(answer)

    def _send(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *given):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.created, server.commits = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", created=server.created, commits=server.commits)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def train(encoder, sentences, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(sentences))

    def run(url, *settings):
        command = [
            "--model_name_or_path", str(encoder), "--train_file", str(text), "--output_dir", str(tmp_path / "tickets"),
            "--per_device_train_batch_size", "8", "--max_steps", "2", "--save_steps", "1", "--use_cpu", "True",
            "--max_seq_length", "24", "--push_to_hub", "True", "--cosine_samples", "False", *settings,
        ]  # fmt: skip
        return processes.python("-c", ONLINE, "train", *command, HF_ENDPOINT=url, HF_TOKEN="hf_nothing")

    return run


def test_the_exported_folder_is_uploaded_once_with_its_card(train, hub, tmp_path):
    out = tmp_path / "tickets"
    (out / "data").mkdir(parents=True)
    for name in ("private_notes.txt", "data/customers.csv", ".env"):  # of the user
        (out / name).write_text("secret")
    finished = train(hub.url)
    assert finished.returncode == 0, finished.stderr
    assert [created["name"] for created in hub.created] == ["tickets"]
    ((path, message, files),) = hub.commits
    assert path == "/api/models/somebody/tickets/commit/main" and message == "Trained with arccse_hf"
    assert files.keys() == {
        "model.safetensors", "modules.json", "README.md", "config.json", "config_sentence_transformers.json",
        "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json",
    }  # fmt: skip
    assert files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert b'SentenceTransformer("somebody/tickets")' in files["README.md"]


def test_checkpoints_are_uploaded_to_a_place_of_their_own_where_the_strategy_says_so(
    train, hub, tmp_path, encoder, sentences
):
    """And nothing that is published has the token or a folder of this machine, nor has the run's folder the token."""
    scored = tmp_path / "scored.csv"
    scored.write_text("sentence1,sentence2,score\n" + "".join(f"{text},a cat,{len(text)}\n" for text in sentences[:9]))
    settings = {"hub_strategy": "checkpoint", "hub_token": "hf_SECRET", "eval_data": scored, "eval_steps": 1}
    finished = train(hub.url, *(str(part) for name, value in settings.items() for part in (f"--{name}", value)))
    assert finished.returncode == 0, finished.stderr
    uploaded = {name: content for _, _, files in hub.commits for name, content in files.items()}
    state = json.loads(uploaded["last-checkpoint/trainer_state.json"])
    assert state["best_model_checkpoint"] in ("checkpoint-1", "checkpoint-2")
    for name, content in uploaded.items():
        for private in ("hf_SECRET", str(tmp_path), encoder):
            assert private.encode() not in content, (name, private)
    for path in (tmp_path / "tickets").rglob("*"):
        assert path.is_dir() or b"hf_SECRET" not in path.read_bytes(), path
    pushed = tmp_path / "pushed"
    pushed.mkdir()
    for name, content in uploaded.items():
        if name.startswith("last-checkpoint/"):
            (pushed / name.removeprefix("last-checkpoint/")).write_bytes(content)
    check_checkpoint(pushed, checksums=True)
    messages = [message for _, message, _ in hub.commits]
    assert messages == ["Checkpoint of step 1", "Checkpoint of step 2", "Trained with arccse_hf"]
    assert all(name.startswith("last-checkpoint/") for _, _, files in hub.commits[:2] for name in files)


def test_the_way_out_of_a_failed_upload_uploads_the_same(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", fail)
    args = ArcCSETrainingArguments(str(tmp_path), use_cpu=True, hub_revision="two words")
    exported = ["model.safetensors", "1_Pooling/config.json", "README.md"]
    with pytest.raises(UserError, match="--push_to_hub True: me/it: no network; the model is whole in") as error:
        push_exported(tmp_path, exported, "me/it", args)
    again = shlex.split(str(error.value).split("`")[1])
    assert again[:7] == ["hf", "upload", "me/it", str(tmp_path), ".", "--revision", "two words"]
    assert again[7:] == ["--include=1_Pooling/*", "--include=README.md", "--include=model.safetensors"]


def test_a_hub_that_cannot_be_reached_is_one_line_before_training(train, tmp_path):
    finished = train("http://127.0.0.1:9")
    assert finished.returncode != 0 and "Traceback" not in finished.stderr
    assert "--push_to_hub True: tickets: " in finished.stderr and "hf auth login" in finished.stderr
    assert not (tmp_path / "tickets").exists()
