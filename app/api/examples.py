"""Examples for the API's schema: answers, errors by their code, and bodies to try out."""

from typing import Any

Example = dict[str, Any]  # Any: JSON

PREDICTED: Example = {
    "model": {"name": "resnext50", "version": 7},
    "results": [
        {"filename": "cat.jpg", "predictions": [{"label": "cat", "index": 3, "probability": 0.98}]},
        {
            "filename": "notes.txt",
            "error": {"code": "not_an_image", "message": "the file is in no known image format; it starts b'Dear '"},
        },
    ],
}

# OpenAPI allows several examples; "Try it out" begins with the first
TRAININGS: dict[str, Example] = {
    "usual": {
        "summary": "a training with a given length and image size",
        "value": {"data": "photos", "name": "resnext50", "image_size": 224, "epochs": 30},
    },
    "least": {"summary": "all defaults", "value": {"data": "photos"}},
    "retrain": {
        "summary": "continue from the active version, on one revision of a dataset",
        "value": {
            "data": "photos@3",
            "init": "live",
            "epochs": 5,
            "learning_rate": 0.0003,
            "gate": {"tolerance": 0.01},
        },
    },
}

_DATASET: Example = {
    "name": "photos",
    "source": "uploaded",
    "revision": 3,
    "created": "2026-11-27T12:00:00Z",
    "images": 178,
    "classes": 2,
    "bytes": 31_457_280,
}
DATASETS: Example = {"datasets": [_DATASET]}
DATASET: Example = {
    **_DATASET,
    "report": {
        "folder": "photos",
        "labels": ["bird", "plant"],
        "images": {"train": 124, "val": 27, "test": 27},
        "classes": {
            "train": {"bird": 62, "plant": 62},
            "val": {"bird": 14, "plant": 13},
            "test": {"bird": 13, "plant": 14},
        },
        "unreadable": [{"path": "bird/7.jpg", "code": "empty_file", "message": "the file is empty"}],
        "duplicates": [],
        "leaks": [],
        "conflicts": [["bird/3.jpg", "plant/9.jpg"]],
        "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
}

# the `detail` of each error, by its code
ERRORS = {
    "internal_error": "the service failed on this request; its log says why",
    "malformed_body": "the multipart body should end with its closing boundary, it breaks off",
    "malformed_request": "the connection should carry requests of HTTP/1.1: Invalid method encountered",
    "unauthorized": "this needs one of the service's API keys, as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
    "forbidden": "this needs a key with the scope train, the key 'shop' has predict",
    "version_not_found": "model 'resnext50' has no version 9, it has 6, 7",
    "model_not_found": "Request for unknown model: 'yolo' is not found; 'resnext50' is served",
    "unknown_service": "there is no service 'nothing'",
    "dataset_not_found": "there is no dataset 'photo'; there are: photos",
    "job_not_found": "there is no job '20261127-120000-abcd'",
    "report_not_found": "job 20261127-120000-abcd has no 'other.png' in its report; it has: history.png, test.json",
    "too_slow": "a request's headers should arrive within 10 s",
    "version_live": "version 7 serves requests; activate another one first",
    "version_unusable": "version 6 cannot be served: 6/model.onnx should have SHA-256 9f86, it has 60a0",
    "repository_damaged": "resnext50/HISTORY should hold a JSON list of versions: Invalid JSON: EOF while parsing",
    "dataset_mounted": "dataset 'photos' is a folder of the operator's: it can be neither uploaded to nor deleted",
    "dataset_in_use": "dataset 'photos' is in use by 20261127-120000-abcd: cancel these jobs, or wait",
    "job_damaged": "job 20261127-120000-abcd cannot be read: its row in the jobs' database should hold a request in "
    "the format portable_json, it holds 'gASVKgAAAAAAAACMBXBvc2l4lIwF'",
    "job_finished": "job 20261127-120000-abcd is over: it has succeeded",
    "job_not_resumable": "job 20261127-120000-abcd is queued: only a cancelled or failed job can be resumed",
    "upload_too_large": "a request's body should have at most 33554432 bytes, 40000000 bytes are announced",
    "too_many_files": "a request should have at most 64 files, this one has more",
    "archive_too_large": "the archive should unpack to at most 1000000 files, it has more",
    "unsupported_body": "the body should come as Content-Type: application/json, it came as text/plain",
    "untrusted_host": "this service is not 'elsewhere.example'",
    "invalid_request": "query.top_k: should be a whole number from 1 to 999999999, got 'many'",
    "idempotency_key_reused": "the key 'monday' came with another request before",
    "no_file": "the body should be one or more multipart/form-data parts named 'file'; it has no parts",
    "wrong_field": "the body should be one or more multipart/form-data parts named 'file'; a part is named 'image'",
    "no_valid_image": "the image cannot be used; `results` says why",
    "archive_unusable": "the archive is damaged or cut short",
    "dataset_unusable": "should hold at least two class folders, it has only 'flowers'",
    "headers_too_large": "a request should have at most 100 headers of 65536 bytes in all, more than 65536 bytes came",
    "rate_limited": "the API key 'shop' may send 100 per 1 second, this is one more; try again in 1 s",
    "client_gone": "the client left before it was answered",
    "inference_failed": "the model gave probabilities that are not finite numbers",
    "dataset_damaged": "dataset 'photos' is damaged: revision 3 has no summary.json",
    "intake_failed": "the process that unpacks and checks was killed by SIGKILL: out of memory?",
    "not_supported": "'resnext50' is the only model of this service and stays loaded",
    "no_model": "the model is being loaded; try again in a moment",
    "version_not_live": "'resnext50' version 6 is not at ready state; version 7 is live",
    "uploads_full": "the uploads under way hold 500000000 of 536870912 bytes, there is no room for 40000000 more; "
    "try again in 2 s",
    "too_many_connections": "all 2048 connections of this process are at work; try again",
    "queue_full": "the queue holds 46 images, which take 1.6 s; at most 1.5 s may wait; try again in 2 s",
    "rollout_busy": "version 7 is being loaded; try again",
    "load_timed_out": "version 7 cannot be loaded: the load of version 7 has not ended in 300 s",
    "intake_busy": "another dataset has been unpacked or checked for more than 30 s; try again later",
    "stuck": "only a restart helps: a run of 4 images has not ended in 31 s, its limit is 10 s",
    "jobs_unavailable": "the jobs' database has not answered within 5 s",
    "repository_unreadable": "resnext50/ACTIVE cannot be read: Permission denied",
    "storage_unavailable": "the datasets folder cannot be used: Read-only file system",
    "run_timed_out": "a run of 4 images was ended after 10 s",
    "deadline_exceeded": "no answer within 30 s; the work that was still queued is dropped",
    "storage_full": "the disk of the datasets folder is full, nothing was kept",
}
