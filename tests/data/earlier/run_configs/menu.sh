#!/usr/bin/env bash
# Chooses a configuration and runs it; flags given to this script are passed on.
# 选择一个配置并运行；给本脚本的参数会原样传递。
# Written by python -m infinitetalk.tools.write_run_configs.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

ask() { # ask QUESTION: the answer is in $answer, empty at the end of input
    printf '%s' "$1"
    IFS= read -r answer || true
}

whole() { # whole PATH: the same file from any folder
    case "$1" in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac
}

choice=""
until [ -n "$choice" ]; do
    cat <<'EOF'
  1  01_ultra_fast          10 GB  Ultra fast: drafts and quick tests / 极速：快速测试与草稿
  2  02_comfyui_equivalent  12 GB  As the ComfyUI workflow / 复现 ComfyUI 工作流
  3  03_balanced            14 GB  Balanced: everyday use / 均衡：日常使用
  4  04_high_quality        18 GB  High quality: final delivery / 高质量：最终交付
  5  05_low_vram            10 GB  Low memory: small graphics cards / 低显存：小显存显卡
  6  06_720p_high_res       22 GB  720p: high resolution / 720p：高分辨率
  q  quit / 退出
EOF
    ask "Which one? / 选择: "
    case "$answer" in
    1 | 01_ultra_fast) choice=01_ultra_fast ;;
    2 | 02_comfyui_equivalent) choice=02_comfyui_equivalent ;;
    3 | 03_balanced) choice=03_balanced ;;
    4 | 04_high_quality) choice=04_high_quality ;;
    5 | 05_low_vram) choice=05_low_vram ;;
    6 | 06_720p_high_res) choice=06_720p_high_res ;;
    q | Q | "") echo; exit 0 ;;
    *) echo "$answer is not one of them. / 没有这一项。" ;;
    esac
done

ask "Picture or video (Enter: the bundled example) / 图片或视频（回车使用示例）: "
[ -z "$answer" ] || set -- --image "$(whole "$answer")" "$@"
ask "Speech (Enter: the bundled example) / 语音（回车使用示例）: "
[ -z "$answer" ] || set -- --audio "$(whole "$answer")" "$@"
ask "Prompt (Enter: the bundled example's) / 提示词（回车使用示例）: "
[ -z "$answer" ] || set -- "--prompt=$answer" "$@"
ask "Name of the video (Enter: the preset's) / 视频文件名（回车使用预设）: "
[ -z "$answer" ] || set -- --save_file "$(whole "$answer")" "$@"
echo
exec bash "$here/$choice.sh" "$@"
