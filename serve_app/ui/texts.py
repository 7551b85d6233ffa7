"""All texts of the page, in Chinese and English."""

from __future__ import annotations

from typing import Literal, TypeAlias

Language: TypeAlias = Literal["zh", "en"]

LANGUAGES: tuple[Language, ...] = ("zh", "en")

TEXTS: dict[str, dict[Language, str]] = {
    "title": {"zh": "语音转文字", "en": "Speech to text"},
    "subtitle": {
        "zh": "长录音转成带标点、带时间的文字",
        "en": "Long Mandarin recordings to punctuated, timed text",
    },
    "recording": {"zh": "录音", "en": "Recording"},
    "drop": {"zh": "把音频文件拖到这里", "en": "Drop an audio file here"},
    "pick": {"zh": "选择文件", "en": "Choose a file"},
    "record": {"zh": "用麦克风录音", "en": "Record"},
    "stop_recording": {"zh": "停止录音", "en": "Stop"},
    "limit": {"zh": "最大 {size}", "en": "Up to {size}"},
    "no_microphone": {
        "zh": "无法使用麦克风：浏览器不允许，或者本页面不是通过 HTTPS 打开的。",
        "en": "No microphone: the browser does not allow it, "
        "or this page was not loaded over HTTPS.",
    },
    "transcribe": {"zh": "开始转写", "en": "Transcribe"},
    "cancel": {"zh": "取消", "en": "Cancel"},
    "transcript": {"zh": "文字", "en": "Transcript"},
    "empty": {
        "zh": "选好录音后点“开始转写”，文字会一句一句出现在这里。",
        "en": "Choose a recording and press Transcribe; the text appears here as it is recognized.",
    },
    "uploading": {"zh": "正在上传", "en": "Uploading"},
    "waiting": {"zh": "正在排队", "en": "Waiting in the queue"},
    "running": {"zh": "正在识别", "en": "Transcribing"},
    "done": {"zh": "完成", "en": "Done"},
    "partial": {
        "zh": "完成，但有几段没能识别（在波形上标为红色）。",
        "en": "Done, but some parts could not be recognized (red in the waveform).",
    },
    "cancelled": {"zh": "已取消", "en": "Canceled"},
    "failed_state": {"zh": "没有完成", "en": "Failed"},
    "silence": {"zh": "这段录音里没有听到说话。", "en": "No speech was found in this recording."},
    "hint": {"zh": "点一句话就能听这一句。", "en": "Click a sentence to hear it."},
    "download": {"zh": "下载", "en": "Download"},
    "no_playback": {
        "zh": "浏览器不能播放这种格式，文字和时间不受影响。",
        "en": "The browser cannot play this format; the text and times are not affected.",
    },
    "retry_in": {"zh": "请在 {seconds} 秒后再试。", "en": "Try again in {seconds} s."},
    "model": {"zh": "模型", "en": "Model"},
    "stages": {"zh": "处理步骤", "en": "Stages"},
    "stage_vad": {"zh": "按停顿切分", "en": "Split at pauses"},
    "stage_punctuation": {"zh": "加标点", "en": "Punctuation"},
    "hotwords": {"zh": "热词", "en": "Hotwords"},
    "hotwords_info": {
        "zh": "希望优先识别的词，用空格隔开",
        "en": "Words to prefer, separated by spaces",
    },
    "key": {"zh": "API 密钥", "en": "API key"},
    "key_info": {
        "zh": "这个服务需要密钥；密钥只留在本页面的内存里。",
        "en": "This service requires an API key; it is kept only in this page's memory.",
    },
    "privacy": {
        "zh": "文件在识别时传给服务，结束后即删除；结果只在本页面里。",
        "en": "The file is sent to the service and deleted when the transcription ends; "
        "the result exists only on this page.",
    },
    # What went wrong: see `problems`.
    "key_missing": {
        "zh": "这个服务需要 API 密钥，请先填写。",
        "en": "This service requires an API key; please enter one.",
    },
    "key_refused": {
        "zh": "这个 API 密钥不对，或已停用、过期。",
        "en": "This API key is invalid, disabled or expired.",
    },
    "model_unknown": {"zh": "这个模型不在服务中。", "en": "This model is not served here."},
    "too_large": {"zh": "文件太大。", "en": "The file is too large."},
    "too_long": {"zh": "录音太长。", "en": "The recording is too long."},
    "too_short": {"zh": "录音太短。", "en": "The recording is too short."},
    "not_audio": {"zh": "这不是音频文件。", "en": "This is not an audio file."},
    "damaged": {
        "zh": "文件已损坏、不完整，或其中的音频无法使用。",
        "en": "The file is damaged, cut off, or its audio cannot be used.",
    },
    "busy": {"zh": "服务正忙。", "en": "The service is busy."},
    "not_ready": {
        "zh": "服务正在启动，或暂时没有空间。",
        "en": "The service is starting, or it is full.",
    },
    "too_late": {
        "zh": "在规定时间内没有完成。",
        "en": "The transcription did not finish within the time limit.",
    },
    "unreachable": {"zh": "连不上识别服务。", "en": "The service cannot be reached."},
    "refused": {"zh": "服务不接受这个请求。", "en": "The service does not accept this request."},
    "failed": {"zh": "服务出错了。", "en": "The service failed."},
    "page_busy": {
        "zh": "现在用这个页面的人太多，请稍后再试。",
        "en": "Too many people are using this page right now; please try again in a moment.",
    },
    "upload_lost": {
        "zh": "上传的文件已过期，请再试一次。",
        "en": "The uploaded file has expired; please try again.",
    },
    "upload_failed": {"zh": "上传没有完成。", "en": "The upload did not finish."},
    "interrupted": {
        "zh": "与页面服务的连接断了。",
        "en": "The connection to this page's server was lost.",
    },
    "page_unknown": {
        "zh": "本页面已失效，请重新加载；浏览器需要允许本站的 Cookie。",
        "en": "This page has expired; please reload it and allow cookies for this site.",
    },
    "demo_warning": {
        "zh": "这里运行的是一个小型演示模型（{models}），只认识人工编写的办公室例句，"
        "真实录音的结果会是乱码般的文字。要使用真正的模型，请服务的管理员运行 "
        "paraserve models pull paraformer-large，然后运行 "
        "paraserve serve --profile paraformer-large-cpu。",
        "en": "This service runs a small demo model ({models}). It recognizes only made-up "
        "office sentences and returns nonsense for real recordings. To serve a real model, the "
        "operator runs: paraserve models pull paraformer-large, then paraserve serve "
        "--profile paraformer-large-cpu.",
    },
}
"""By name, then by language; `{name}` is filled in where it is shown."""


def text(name: str, language: Language) -> str:
    return TEXTS[name][language]


def language_of(value: object) -> Language:
    """Returns the language that a value from a browser names; English if it names none."""
    return "zh" if value == "zh" else "en"
