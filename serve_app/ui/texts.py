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
    "languages": {"zh": "界面语言", "en": "Page language"},
    # Recordings.
    "recording": {"zh": "录音", "en": "Recording"},
    "drop": {"zh": "把音频或视频文件拖到页面上", "en": "Drop audio or video files on this page"},
    "drop_here": {"zh": "松开鼠标即可添加文件", "en": "Drop the files to add them"},
    "pick": {"zh": "选择文件", "en": "Choose files"},
    "record": {"zh": "用麦克风录音", "en": "Record"},
    "sample": {"zh": "试试示例录音", "en": "Try a sample"},
    "limit": {"zh": "每个文件最大 {size}", "en": "Up to {size} per file"},
    "recorder": {"zh": "正在录音", "en": "Microphone"},
    "level": {"zh": "音量", "en": "Input level"},
    "pause_recording": {"zh": "暂停", "en": "Pause"},
    "resume_recording": {"zh": "继续", "en": "Resume"},
    "stop_recording": {"zh": "停止录音", "en": "Stop"},
    "captions": {"zh": "实时文字", "en": "Live captions"},
    "captions_hint": {
        "zh": "请讲话，文字会出现在这里。",
        "en": "Speak, and the text appears here.",
    },
    "captions_failed": {
        "zh": "实时文字已停止。{problem}录音不受影响，停止后可以照常转写。",
        "en": "Live captions have stopped. {problem} The recording goes on and can be transcribed "
        "when you stop it.",
    },
    "no_microphone": {
        "zh": "无法使用麦克风：浏览器不允许，或者本页面不是通过 HTTPS 打开的。",
        "en": "No microphone: the browser does not allow it, "
        "or this page was not loaded over HTTPS.",
    },
    "files": {"zh": "文件", "en": "Files"},
    "file_progress": {"zh": "{name} 的进度", "en": "Progress of {name}"},
    "show_file": {"zh": "查看 {name}", "en": "Show {name}"},
    "remove_file": {"zh": "移除 {name}", "en": "Remove {name}"},
    "save_recording": {"zh": "保存录音 {name}", "en": "Save the recording {name}"},
    # Options.
    "options": {"zh": "选项", "en": "Options"},
    "model": {"zh": "模型", "en": "Model"},
    "demo_model": {"zh": "{name}（演示）", "en": "{name} (demo)"},
    "language": {"zh": "语言", "en": "Language"},
    "language_default": {"zh": "默认", "en": "Default"},
    "language_auto": {"zh": "自动识别", "en": "Detect automatically"},
    "stage_vad": {"zh": "按停顿切分", "en": "Split at pauses"},
    "stage_punctuation": {"zh": "加标点", "en": "Punctuation"},
    "stage_speakers": {"zh": "区分说话人", "en": "Label speakers"},
    "num_speakers": {"zh": "说话人数", "en": "Number of speakers"},
    "num_speakers_any": {"zh": "自动", "en": "Automatic"},
    "itn": {"zh": "数字写成阿拉伯数字", "en": "Write numbers as digits"},
    "separate_channels": {"zh": "各声道分别识别", "en": "Each channel for itself"},
    "channel_name": {"zh": "声道 {number}", "en": "Channel {number}"},
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
    "use_key": {"zh": "使用密钥", "en": "Use key"},
    "transcribe": {"zh": "开始转写", "en": "Transcribe"},
    "transcribe_all": {"zh": "转写 {count} 个文件", "en": "Transcribe {count} files"},
    "cancel": {"zh": "取消", "en": "Cancel"},
    "retry": {"zh": "重试", "en": "Try again"},
    "privacy": {
        "zh": "文件在识别时传给服务，结束后即删除；结果只在本页面里。"
        "下载字幕时，文字会传给服务一次，不会保存。",
        "en": "The file is sent to the service and deleted when the transcription ends; the "
        "result exists only on this page. To make a subtitle file, the page sends the text to "
        "the service, which does not keep it.",
    },
    # States.
    "chosen": {"zh": "未开始", "en": "Not started"},
    "queued": {"zh": "等待中", "en": "Waiting"},
    "uploading": {"zh": "正在上传", "en": "Uploading"},
    "waiting": {"zh": "正在排队", "en": "Waiting in the queue"},
    "running": {"zh": "正在识别", "en": "Transcribing"},
    "done": {"zh": "完成", "en": "Done"},
    "partial": {
        "zh": "完成，但有几段没能识别（在波形上标为红色）。",
        "en": "Done, but some parts could not be recognized (red in the waveform).",
    },
    "cancelled": {"zh": "已取消", "en": "Canceled"},
    "cancelled_partial": {
        "zh": "已取消；已识别的文字可以下载。",
        "en": "Canceled; the text so far can be downloaded.",
    },
    "failed_state": {"zh": "没有完成", "en": "Failed"},
    # Jobs.
    "jobs": {"zh": "任务", "en": "Jobs"},
    "jobs_info": {
        "zh": "关闭页面后任务会继续。本浏览器记得这些任务；文字在服务中保存一段时间后删除。",
        "en": "Jobs go on when this page is closed. This browser remembers them; the service "
        "keeps each transcript for a limited time.",
    },
    "as_job": {"zh": "作为任务转写", "en": "Transcribe as a job"},
    "as_job_info": {
        "zh": "录音较长：作为任务上传完毕后就可以关闭页面，以后再来看结果。",
        "en": "This recording is long: as a job it goes on after the upload even if you close "
        "this page, and you can come back for the result.",
    },
    "job": {"zh": "已作为任务提交", "en": "Handed over as a job"},
    "job_unknown": {"zh": "状态未知", "en": "State unknown"},
    "job_queued": {"zh": "正在排队", "en": "Queued"},
    "job_waits": {"zh": "正在排队，前面有 {count} 个", "en": "Queued, {count} before it"},
    "job_running": {"zh": "正在识别 {percent}%", "en": "Transcribing {percent}%"},
    "job_completed": {"zh": "完成", "en": "Done"},
    "job_failed": {"zh": "没有完成。", "en": "Failed."},
    "job_cancelled": {"zh": "已取消", "en": "Canceled"},
    "job_expired": {"zh": "已过期，没有开始", "en": "Expired before it started"},
    "job_done": {"zh": "任务 {name} 已完成", "en": "The job {name} is done"},
    "open_job": {"zh": "打开", "en": "Open"},
    "open_job_of": {"zh": "打开 {name} 的文字", "en": "Open the transcript of {name}"},
    "cancel_job": {"zh": "取消任务 {name}", "en": "Cancel the job {name}"},
    "remove_job": {
        "zh": "从服务中删除任务 {name}",
        "en": "Delete the job {name} from the service",
    },
    "no_recording": {
        "zh": "录音不在本页面上，不能播放；双击文字可以修改。",
        "en": "The recording is not on this page and cannot be played. Double-click to edit.",
    },
    # The transcript.
    "transcript": {"zh": "文字", "en": "Transcript"},
    "empty": {
        "zh": "选好录音后点“开始转写”，文字会一句一句出现在这里。",
        "en": "Choose a recording and press Transcribe; the text appears here as it is recognized.",
    },
    "sentences": {"zh": "逐句文字", "en": "Sentences"},
    "silence": {"zh": "这段录音里没有听到说话。", "en": "No speech was found in this recording."},
    "hint": {
        "zh": "点时间听这一句，点文字从那里播放；双击文字可以修改。",
        "en": "Click a time to hear the sentence, or a word to play from there. "
        "Double-click to edit.",
    },
    "no_playback": {
        "zh": "浏览器不能播放这种格式，文字和时间不受影响。",
        "en": "The browser cannot play this format; the text and times are not affected.",
    },
    "play": {"zh": "播放", "en": "Play"},
    "pause": {"zh": "暂停", "en": "Pause"},
    "position": {"zh": "播放位置", "en": "Playback position"},
    "position_of": {"zh": "{position}，共 {duration}", "en": "{position} of {duration}"},
    "speed": {"zh": "播放速度", "en": "Playback speed"},
    "play_sentence": {"zh": "播放 {time} 的一句", "en": "Play the sentence at {time}"},
    "edit_sentence": {"zh": "修改 {time} 的一句", "en": "Edit the sentence at {time}"},
    "edit_text": {"zh": "文字，{time}", "en": "Text at {time}"},
    "edit_help": {
        "zh": "回车保存，Esc 放弃",
        "en": "Enter saves, Escape discards",
    },
    "restore": {"zh": "恢复原文", "en": "Restore original"},
    "edited": {"zh": "已修改", "en": "edited"},
    "deleted_text": {"zh": "（已清空）", "en": "(removed)"},
    "rename_speaker": {"zh": "给说话人 {name} 改名", "en": "Rename speaker {name}"},
    "speaker_name": {"zh": "说话人 {name} 的名字", "en": "Name of speaker {name}"},
    "unknown_speaker": {"zh": "未知", "en": "unknown"},
    "search": {"zh": "在文字中查找", "en": "Search the transcript"},
    "search_count": {"zh": "{number}/{count}", "en": "{number} of {count}"},
    "search_none": {"zh": "没有找到", "en": "No matches"},
    "previous": {"zh": "上一处", "en": "Previous match"},
    "next": {"zh": "下一处", "en": "Next match"},
    "uncertain": {"zh": "标出不确定的词", "en": "Mark uncertain words"},
    "confidence": {"zh": "可信度 {percent}%", "en": "Confidence {percent}%"},
    "copy": {"zh": "复制", "en": "Copy"},
    "copied": {"zh": "已复制", "en": "Copied"},
    "copy_failed": {
        "zh": "浏览器不允许复制，请改用下载。",
        "en": "The browser does not allow copying; use a download instead.",
    },
    "download": {"zh": "下载", "en": "Download"},
    "download_as": {"zh": "下载 {kind}", "en": "Download {kind}"},
    "subtitle_length": {"zh": "字幕每行字数", "en": "Subtitle line length"},
    "subtitle_auto": {"zh": "自动", "en": "Automatic"},
    "subtitle_chars": {"zh": "{count} 字", "en": "{count} characters"},
    "retry_in": {"zh": "请在 {seconds} 秒后再试。", "en": "Try again in {seconds} s."},
    # Errors, and what to do about them (`..._fix`): see `Problem`.
    "key_missing": {
        "zh": "这个服务需要 API 密钥，请先填写。",
        "en": "This service requires an API key; please enter one.",
    },
    "key_refused": {
        "zh": "这个 API 密钥不对，或已停用、过期。",
        "en": "This API key is invalid, disabled or expired.",
    },
    "model_unknown": {"zh": "这个模型不在服务中。", "en": "This model is not served here."},
    "too_large": {
        "zh": "文件太大：{size}，上限是 {limit}。",
        "en": "The file is too large: {size}. The limit is {limit}.",
    },
    "too_large_fix": {
        "zh": "请先压缩或分割录音，例如：ffmpeg -i 录音.wav -vn -ac 1 -ar 16000 -b:a 32k 录音.mp3"
        "（一小时约 14 MB）。管理员可以提高 audio.max_upload_bytes。",
        "en": "Compress or split the recording first, for example: ffmpeg -i recording.wav -vn "
        "-ac 1 -ar 16000 -b:a 32k recording.mp3 (about 14 MB per hour). The operator can raise "
        "audio.max_upload_bytes.",
    },
    "too_long": {
        "zh": "录音太长：上限是 {limit}。",
        "en": "The recording is too long. The limit is {limit}.",
    },
    "too_long_unknown": {"zh": "录音太长。", "en": "The recording is too long."},
    "too_long_fix": {
        "zh": "请先分割录音，例如：ffmpeg -i 录音.mp3 -f segment -segment_time 3600 -c copy "
        "录音-%02d.mp3。管理员可以提高 audio.max_duration_s。",
        "en": "Split the recording first, for example: ffmpeg -i recording.mp3 -f segment "
        "-segment_time 3600 -c copy recording-%02d.mp3. The operator can raise "
        "audio.max_duration_s.",
    },
    "too_short": {"zh": "录音太短。", "en": "The recording is too short."},
    "not_audio": {"zh": "这不是音频文件。", "en": "This is not an audio file."},
    "not_audio_fix": {
        "zh": "可以使用 MP3、M4A、AAC、WAV、FLAC、OGG、AMR 音频，或 MP4、WebM 视频。",
        "en": "Use MP3, M4A, AAC, WAV, FLAC, OGG or AMR audio, or MP4 or WebM video.",
    },
    "damaged": {
        "zh": "文件已损坏、不完整，或其中的音频无法使用。",
        "en": "The file is damaged, cut off, or its audio cannot be used.",
    },
    "damaged_fix": {
        "zh": "请重新导出或重新下载这段录音，再试一次。",
        "en": "Export or download the recording again, then try once more.",
    },
    "empty_file": {"zh": "文件是空的。", "en": "The file is empty."},
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
    "job_gone": {"zh": "这个任务已不在服务中。", "en": "The service no longer has this job."},
    "jobs_full": {
        "zh": "排队的任务太多，请等一些开始后再试。",
        "en": "Too many jobs are queued; try again once some have started.",
    },
    "quota_used_up": {
        "zh": "这个密钥本月的用量已用完。",
        "en": "This API key has used its audio of this month.",
    },
    "page_busy": {
        "zh": "现在用这个页面的人太多，请稍后再试。",
        "en": "Too many people are using this page right now; please try again in a moment.",
    },
    "render_failed": {
        "zh": "没能生成字幕文件；仍可下载 TXT、MD 或 JSON。",
        "en": "The subtitle file could not be made; TXT, MD and JSON can still be downloaded.",
    },
    "sample_failed": {"zh": "没能取得示例录音。", "en": "The sample could not be loaded."},
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
