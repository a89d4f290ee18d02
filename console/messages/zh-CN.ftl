# 控制台的中文消息。键与顺序同 en.ftl。

## 框架
skip = 跳到正文
nav-label = 栏目
nav-overview = 概览
nav-hosts = 节点
nav-components = 组件
nav-settings = 设置
sign-out = 退出
offline = 控制台没有响应，以下数据已过时。页面会自动重试。

## 登录
sign-in = 登录
sign-in-title = 登录控制台
sign-in-help = 仅供管理员使用，聊天账号不能在此登录。
sign-in-account = 用户名
sign-in-password = 密码
sign-in-wrong = 用户名或密码不正确，请检查后重试。
sign-in-locked = 密码错误次数过多，请在 { $wait }后重试。

## 状态
state-well = 正常
state-attention = 注意
state-broken = 故障
state-unknown = 未知
state-working = 进行中
state-was = 此前：{ $state }

## 时效
fresh-ago = { $ago }前测得，
fresh-stale = 以下数据是 { $ago }前的，测于
fresh-cause = 最近一次测量失败：{ $cause }
fresh-hint = 处理办法：{ $hint }

## 概览
overview-waiting = 正在首次测量集群。
overview-never = 状态未知：集群无法测量。
overview-empty = 状态未知：拓扑中没有任何组件。
overview-stale = 状态未知：最近一次测量在 { $ago }前。
overview-well = 一切正常。{ $hosts } 个节点上的 { $components } 个组件均在运行并有响应。
overview-broken = { $more ->
    [0] 故障：{ $first }。
   *[other] 故障：{ $first }。另有 { $more } 项不正常。
}
overview-attention = { $more ->
    [0] 均在运行，但请留意：{ $first }。
   *[other] 均在运行，但请留意：{ $first }，另有 { $more } 项。
}
overview-unknown = { $more ->
    [0] 无法确认正常：{ $first }。
   *[other] 无法确认正常：{ $first }，另有 { $more } 项。
}
overview-working = { $more ->
    [0] 正在启动或停止：{ $first }。
   *[other] 正在启动或停止：{ $first }，另有 { $more } 项。
}
overview-problems = 不正常的项目
overview-figures = 数据
overview-endpoints = 用户连接地址
overview-endpoints-help = 聊天地址以 @{ $domain } 结尾。
problem-component = { $host } 上的 { $component }
problem-version = 正在运行 { $running }，应为 { $wanted }。
problem-host-away = 节点 { $host } 没有响应
problem-disk = { $host } 磁盘空间不足
problem-memory = { $host } 内存不足
free-of = 可用 { $free }，共 { $total }
figure-of = { $part } / { $whole }
figure-hosts = 节点
figure-hosts-note = 有响应
figure-components = 组件
figure-components-note = 在运行并有响应
figure-disk = 最少可用磁盘
figure-memory = 最少可用内存
figure-tightest = { $host }，共 { $total }
endpoint-web = 网页聊天
endpoint-xmpp = XMPP，STARTTLS
endpoint-xmpp-tls = XMPP，直接 TLS
endpoint-console = 控制台

## 组件名称
component-im = IM 核心
component-console = 控制台

## 表格
column-state = 状态
column-host = 节点
column-address = 地址
column-component = 组件
column-components = 组件
column-system = 系统
column-cpus = CPU
column-memory-free = 可用内存
column-disk-free = 可用磁盘
column-running = 版本
column-wanted = 目标版本
column-memory = 内存
column-since = 已运行
column-restarts = 重启次数
column-browser = 浏览器
column-began = 登录时间
column-used = 最近使用
filter-hosts = 查找节点
filter-components = 查找组件
filter-not-well = 仅显示不正常
filter-apply = 显示
filter-clear = 显示全部
filter-empty = 没有匹配的内容。选择“显示全部”可查看所有行。

## 节点
hosts-all = 全部 { $hosts } 个节点均有响应。
hosts-some = { $hosts } 个节点中有 { $away } 个没有响应。
hosts-empty = 首次测量后，集群的节点会显示在这里。
host-well = 一切正常。其 { $components } 个组件均在运行并有响应。
host-not-well = 此节点的 { $components } 个组件中有 { $wrong } 个不正常。
host-away = 此节点没有响应，其上组件的状态未知。
host-empty = 此节点上没有组件。
host-no-components = 拓扑没有给此节点分配角色。角色在 cluster.yaml 的 hosts 中设置。
host-facts = 机器
host-memory = 内存
host-disk = 数据磁盘

## 组件
components-all = 全部 { $components } 个组件均以目标版本运行并有响应。
components-some = { $components } 个组件中有 { $wrong } 个不正常。
components-differ = { $wrong ->
    [1] { $components } 个组件中有一个不正常：其版本不是目标版本。
   *[other] { $components } 个组件中有 { $wrong } 个不正常，其中 { $differing } 个不是目标版本。
}
components-empty = 首次测量后，集群的组件会显示在这里。

## 设置
settings-lead = 当前登录：{ $name }。
settings-password = 密码
settings-current = 当前密码
settings-new = 新密码
settings-new-help = 至少 { $shortest } 个字符。几个词组合起来，好记又难猜。
settings-repeat = 再次输入新密码
settings-password-effect = 其他会话将全部结束。如需撤销，请再次修改。
settings-password-change = 修改密码
settings-password-done = 密码已修改，其他会话已全部结束。
settings-sessions = 会话
settings-this-session = 本会话
settings-used-ago = { $ago }前
settings-end-others = 结束其他所有会话
settings-sessions-done = 其他会话已全部结束。
settings-about = 关于
settings-version = 版本
password-wrong = 当前密码不正确，请重新输入。
password-short = 新密码太短，请至少使用 { $shortest } 个字符。
password-long = 新密码太长，最多 1024 字节。
password-guessable = 新密码容易被猜到。请使用更多不同的字符，并避免包含用户名。
password-same = 新密码与当前密码相同，请另选一个。
password-differs = 两次输入的新密码不一致，请输入相同的密码。

## 出错时
error-not-found-title = 此页面不存在
error-not-found = 地址有误，或其内容已不属于此集群。
error-signed-out-title = 您已退出
error-signed-out = 会话已结束，没有任何更改。请登录后重做。
error-token-title = 表单已过期
error-token = 表单是在登录或退出之前打开的，没有任何更改。请重新打开页面再提交一次。
error-form-title = 无法读取表单
error-form = 表单不完整或过大，没有任何更改。请重新打开页面再提交一次。
error-busy-title = 同时登录的人过多
error-busy = 没有任何更改。请等待十秒后重试。
error-broken-title = 控制台无法完成此操作
error-broken = 原因见控制台日志：maxim.ctl logs console。处理后请重试。
error-back = 返回概览

## 时长
duration-seconds = { $value } 秒
duration-minutes = { $value } 分钟
duration-hours = { $value } 小时
duration-days = { $value } 天
