# 命令行的所有语句。每个键在 en 中也有；由测试比较。

word-error = 错误
word-warning = 警告
word-hint = 建议

error-more = ……另有 { $count } 处错误
interrupted = 已中断
interrupting = 已中断：将在下一个安全点结束。再按一次立即结束。

## 提问

ask-default-no = y/N
ask-apply = 执行这 { $changes } 项变更？
ask-sudo = { $host } 上的 sudo 密码
ask-sudo-all = sudo 密码
ask-trust = 安装包签名密钥的指纹是
    { "  " }{ $fingerprint }
    这与发布者告诉您的指纹一致吗？
ask-uninstall = 从各节点移除 { $cluster }（保留数据）？
ask-purge = 从各节点移除 { $cluster } 及其全部数据？
ask-replace = 替换 { $old }？它绝不能再提供服务。
ask-type-name = 输入 { $name } 以继续：
ask-remove-user = 删除 { $address } 及其全部内容？
nobody-to-ask = 有问题需要回答，但没有终端
nobody-to-ask-hint = 用 --yes 回答，或先用 --dry-run 查看
declined = 未做任何更改

password-new = 新密码
password-again = 再输入一次
password-differs = 两次输入的密码不同
password-differs-hint = 请重新输入
password-nobody = 需要密码，但没有终端可以询问
password-nobody-hint = 用 --password-stdin 从标准输入给出

## 集群与安装方式

cluster-none = 这里没有安装过任何集群
cluster-none-hint = 先运行 `./maxim.ctl install`，或用 -f 指定拓扑文件
cluster-which = 这里有多个部署：{ $names }
cluster-which-hint = 用 --cluster NAME 或 -f FILE 指定，嵌入式部署用 --root DIR 指定
cluster-embedded = { $root } 中的嵌入式部署
reason-installed = 这里已按此方式安装
reason-asked = 由 --profile 指定
reason-root-flag = --root 指定了目录
reason-not-root = 不是 root 用户
reason-no-systemd = 本机没有运行 systemd
reason-no-bundle = 程序旁边没有安装包，也没有用 --bundle 指定
reason-standard = systemd 主机上的 root 用户，安装包为 { $bundle }
component-absent = { $cluster } 没有组件 { $component }
component-absent-hint = `status` 会列出它有的组件

## 阶段

phase-name-connect = 连接
phase-name-probe = 探测
phase-name-check = 检查
phase-name-plan = 计划
phase-name-apply = 执行
phase-name-verify = 验证
phase-connect = { $hosts } 个节点
phase-check = { $checks } 项检查，{ $warnings } 项警告，{ $blocked } 项阻断
phase-check-good = { $checks } 项检查，全部通过
phase-plan = { $changes ->
    [0] 无需更改
   *[other] { $changes } 项变更
}
phase-apply = { $changes ->
    [0] 未做更改
   *[other] 完成 { $changes } 项变更
}
phase-verify = { $messages ->
    [1] 消息在 { $time } 内送达
   *[other] { $messages } 条消息均已送达，最慢 { $time }
}
step-agent-sent = ，已发送代理程序（{ $size }）

## 安装

install-begin = { $cluster }：{ $hosts } 个节点，安装方式 { $profile }
install-reason = 选择 { $profile } 的原因：{ $reason }
install-done = { $changes ->
    [0] 一切正常，无需更改（{ $time }）。
   *[other] 安装完成，已用一条消息验证：{ $changes } 项变更，{ $time }。
}
account-chat = 登录聊天
account-console = 登录控制台
account-password = 密码
account-file = 密码保存在 { $path }
dns-records = 请创建以下 DNS 记录：
next = 接下来：
next-user = 添加成员
next-status = 查看状态
next-ca = 导出供手机和浏览器信任的证书
endpoint-web = 网页聊天
endpoint-xmpp = XMPP
endpoint-console = 控制台
plan-nothing = 无需更改。
plan-sum = { $hosts } 个节点上共 { $changes } 项变更。
plan-kept = 已保存到 { $path }。按此执行：{ $command }
dry-run = 试运行：未做任何更改。

## 检查

verdict-pass = 正常
verdict-info = 信息
verdict-warn = 警告
verdict-block = 阻断
check-threshold = （{ $threshold }）
check-fixed-by-plan = 安装会自动修正，计划中可以看到。
check-sum = { $good } 项正常，{ $warnings } 项警告，{ $blocked } 项阻断。未做任何更改。

## 状态

status-well = 一切正常
status-attention = 正在运行，有需要注意的地方
status-stopped = 已停止
status-broken = { $components } 个组件故障
status-unknown = { $components } 个组件状态未知
status-away = { $hosts } 个节点无法连接
health-well = 正常
health-attention = 注意
health-broken = 故障
health-stopped = 已停止
health-unknown = 未知
health-working = 进行中
host-system = { $system }，{ $cpus } 核
host-away = 无法连接：{ $why }
version-differs = { $running }（应为 { $wanted }）
column-host = 节点
column-address = 地址
column-system = 系统
column-memory-free = 可用内存
column-disk-free = 可用磁盘
column-component = 组件
column-version = 版本
column-health = 状态
column-memory = 内存
column-since = 已运行
column-phase = 阶段
column-time = 用时
column-name = 姓名
column-state = 状态
column-created = 创建时间
column-owner = 持有者
column-cluster = 集群
column-member = 成员
column-kind = 类型
column-size = 大小
column-unpacked = 解压后
column-roles = 角色

## 配置

config-set = 拓扑中 { $key } 现在是 { $value }。要让节点生效：{ $command }
config-same = { $key } 已经是 { $value }。
drift-none = 没有漂移：实际与期望一致。
drift-some = { $count } 处与期望不一致；`install` 会修正。

## 用户

user-added = { $address } 可以登录了。
user-passwd = { $address } 的密码已更新。
console-passwd-made = 控制台管理员 `admin` 的密码已更新，保存在 { $path } 中。
console-passwd-set = 控制台管理员 `admin` 的密码已更新。
user-disabled = { $address } 不能再登录；数据保留。
user-enabled = { $address } 可以再次登录。
user-removed = { $address } 已删除。
user-none = 还没有账号。
user-state-enabled = 启用
user-state-disabled = 停用
import-sum = 新建 { $created } 个，已存在 { $there } 个，拒绝 { $refused } 个
import-dry-run = 将新建 { $count } 个账号。未做任何更改。

## 证书、安装包、诊断、锁、卸载

ca-written = { $path }
    SHA-256 { $fingerprint }
bundle-built = { $path }  { $size }
    SHA-256 { $sha256 }
    签名密钥 { $fingerprint }
    公钥：{ $public }，供 --trust-key 使用
    安装命令：{ $command }
bundle-good = { $path } 完整：版本 { $version }，架构 { $architecture }，{ $members } 个成员，{ $size }，读取用时 { $time }
    签名密钥 { $fingerprint }
bundle-own-key = 该密钥来自安装包本身：请与发布者公布的指纹核对，或用 --trust-key 指定。
bundle-head = Maxim { $version }，架构 { $architecture }，{ $size }，签名密钥 { $fingerprint }
doctor-well = 没有发现问题。
doctor-sum = { $broken } 处故障，{ $warnings } 项警告
support-made = { $path }：{ $files } 个文件，{ $size }
support-missing = { $host }：缺少{ $what }：{ $why }
support-look = 其中没有密码和密钥。日志中有账号地址和主机名：发送前请先查看。
lock-free = 空闲
lock-removed = 已移除
lock-expired = 租约已过期
lock-held = 持有中，租约 { $seconds } 秒后到期
lock-hint = 用 --expired 移除租约已过期的锁，或用 --owner 'OWNER' 移除某个持有者的锁。
replace-data = 数据取自备份集 { $set }：{ $parts }。
replace-withdrawn = 失效节点掌握的以下凭据已作废：{ $what }。
replace-way = { $address } 上的 { $old }（{ $roles }）将由 { $to } 上的 { $new } 替换。
replace-set = 其数据（{ $parts }）取自 { $point } 的备份集 { $set }。此后的一切都将丢失。
replace-lost = 它的以下数据将丢失：{ $parts }。
replace-withdraws = 它掌握的以下凭据将作废：{ $what }。
replace-never-again = { $old } 必须关机，绝不能带着服务恢复运行。
replace-done = { $old } 已由 { $address } 上的 { $new } 替换（{ $changes } 项更改，用时 { $time }）。
uninstall-done = { $cluster } 已卸载（移除 { $changes } 项）。
uninstall-left = 保留了数据：

## 升级

ask-upgrade = 升级到 { $to }？
ask-finalize = 把上次升级定稿？之后只能用备份退回。
upgrade-needs-bundle = 升级到哪个安装包？
upgrade-needs-bundle-hint = 用 --bundle FILE 指定；单独的 `upgrade --finalize` 把上次升级定稿
upgrade-way = 从 { $from } 到 { $to }，逐个节点进行：{ $hosts }。
upgrade-resumes = 继续完成被中断的升级；已完成的节点保持不变。
upgrade-stages = 切换之前先向节点发送 { $size }。
upgrade-snapshot = 先做快照。
upgrade-no-snapshot = 事先不做快照。
upgrade-schema = 数据库结构从 { $now } 扩展到 { $expanded }，只增不减；旧版本仍可使用。
upgrade-point = 在 `upgrade --finalize` 把结构带到 { $finalized } 之前，`rollback` 都能退回 { $from }；那是不可回退点，本次到此为止，不会越过。
upgrade-point-plain = 在 `upgrade --finalize` 之前，`rollback` 都能退回 { $from }；结构不会删减。
upgrade-finalizes = 本次结束时越过不可回退点：之后只能用备份退回。
upgrade-done = { $changes ->
    [0] 已经是 { $to }，无需更改（{ $time }）。
   *[other] 已从 { $from } 升级到 { $to }，并用消息验证：{ $changes } 项变更，{ $time }。
}
upgrade-next = `maxim.ctl rollback` 可以退回。确认一切正常后：`maxim.ctl upgrade --finalize`。
upgrade-finalized = 升级已定稿；旧版本的内容已全部清除。
rollback-done = 已从 { $from } 退回 { $to }，并用消息验证：{ $changes } 项变更，{ $time }。
status-upgrade = 从 { $from } 到 { $to } 的升级：{ $phase }。
status-upgrade-back = `maxim.ctl rollback` 可退回 { $from }。
status-upgrade-failure = 失败原因：{ $why }
phase-upgrade-staging = 已开始，尚未切换
phase-upgrade-switching = 正在切换节点；用 `maxim.ctl upgrade` 完成
phase-upgrade-rolling-back = 正在退回节点；用 `maxim.ctl rollback` 完成
phase-upgrade-rolled-back = 已退回
phase-upgrade-switched = 所有节点已运行新版本，尚未定稿
phase-upgrade-finalizing = 正在定稿；用 `maxim.ctl upgrade --finalize` 完成

## 备份

column-set = 备份集
column-point = 时间点
column-verified = 已校验
column-proven = 已验证恢复
column-verdict = 保留策略
set-manual = 手动
set-scheduled = 定时
set-safety = 安全
backup-created = 备份集 { $set }：{ $size }，仓库新增 { $added }，用时 { $time }
backup-kit = 恢复套件已生成。请打印 { $page }，并把它和 { $file }
    保存在本机之外：凭它们和仓库即可重建一切。
backup-none = 还没有备份集。创建一个：maxim.ctl backup create
backup-verified = 备份集 { $set } 完整；重新读取了仓库的 { $percent } %，与清单比对 { $compared }，用时 { $time }
backup-key = 仓库：{ $repository }
    打印页：{ $page }
    文件：{ $file }
backup-drilled = 备份集 { $set } 已恢复并读取：恢复用时 { $recovery }，将丢失 { $lost } 的数据，{ $tables } 张表、{ $rows } 行核对无误
prune-stays = 保留：{ $reasons }
prune-goes = 删除
prune-incomplete = 删除：从未完成
restore-would = 将恢复 { $point } 的备份集 { $set }，覆盖：
restore-overwrites = { $host } 上的 { $part }，{ $size }
restore-done = { $point } 的备份集 { $set } 已恢复并提供服务：{ $tables } 张表、{ $rows } 行核对无误，用时 { $time }，其中停止服务 { $stopped }
restore-safety = 之前的数据在安全备份集 { $set } 中
restore-state = 备份集 { $set } 中的集群状态已写入 { $path }
ask-restore = 用 { $point } 的备份集 { $set } 替换？
ask-kit-password = 恢复套件打印页上的密码
schedule-backup = 备份
schedule-verify = 校验
schedule-prune = 删除旧备份集（此前失败）
schedule-drill = 恢复演练
schedule-drill-by-hand = 恢复演练：不会自动运行，因为保存仓库的主机上没有可以启动的 IM 核心；请在本机运行 `maxim.ctl backup drill`，或由本机的定时器运行。
schedule-none = 没有定时计划。设置：maxim.ctl config set backup.schedule "0 3 * * *"
schedule-next = { $schedule }，时区 { $zone }；下次 { $next }
schedule-owed = 错过了一次运行，现在应补做。
status-backup = 备份
status-backup-never = 从未
status-backup-last = { $age } 前，备份集 { $set }，{ $size }
status-verify = 最近校验
status-verify-last = { $age } 前，备份集 { $set }
status-drill = 已验证的恢复
status-drill-last = { $age } 前，恢复用时 { $recovery }，会丢失 { $lost } 的数据
status-backup-trouble = 已失败 { $times } 次，最近一次在 { $age } 前：{ $trouble }
