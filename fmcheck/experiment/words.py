"""The words of an experiment note in English and Chinese."""

from collections.abc import Callable

from fmcheck.errors import DeclarationError, did_you_mean

__all__ = ["CONCLUSIONS", "LANGUAGES", "Say", "speaker"]

Say = Callable[[str], str]

LANGUAGES = ("en", "zh", "both")
CONCLUSIONS = ("keep", "reject", "retest")

# English words are their own key.
_CHINESE = {
    "Goal": "目标",
    "Settings": "设置",
    "Metrics and records": "指标与记录",
    "Conclusion": "结论",
    "Next step": "下一步",
    "Raw notes": "原始笔记",
    "keep": "保留",
    "reject": "否决",
    "retest": "待复验",
    "setting": "设置项",
    "metric": "指标",
    "record": "记录",
    "this run": "本次",
    "baseline": "基线",
    "rule": "规则",
    "gate": "门禁",
    "clean": "合格",
    "FAILED": "不合格",
    "passed": "通过",
    "failed": "失败",
    "expected": "预期失败",
    "skipped": "跳过",
    "not informative": "无信息",
    "out of resources": "资源不足",
    "judged": "已判定",
    "errors": "错误",
    "warnings": "警告",
    "notes": "提示",
    "Largest used / allowed": "用量/容限最大者",
    "Failed rules": "失败的规则",
    "none": "无",
    "new": "新增",
    "as in the baseline": "与基线相同",
    "failed only in the baseline": "仅基线失败",
    "experiment": "实验",
    "subject": "对象",
    "case": "用例",
    "device": "设备",
    "platform": "平台",
    "threads": "线程",
    "generate calls": "调用次数",
    "seconds in generate": "生成秒数",
    "seconds in all": "总秒数",
    "the knobs that differ": "与基线不同之处",
    "to be written": "待填写",
}


def speaker(language: str) -> Say:
    """A function from an English word of the note to the word in a language, or in both; other words stay.

    Raises:
        DeclarationError: no such language.
    """
    if language not in LANGUAGES:
        raise DeclarationError(
            f"language: expected one of {', '.join(LANGUAGES)}; found {language!r}{did_you_mean(language, LANGUAGES)}"
        )

    def say(word: str) -> str:
        chinese = _CHINESE.get(word, word)
        if language == "en" or chinese == word:
            return word
        return chinese if language == "zh" else f"{word} {chinese}"

    return say
