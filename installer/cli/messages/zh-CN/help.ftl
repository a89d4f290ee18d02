# 帮助文本，按命令和选项的名称查找。

about = Maxim：企业私有聊天，从裸机到第一条消息。
help-usage = 用法
help-commands = 命令
help-arguments = 参数
help-options = 选项
help-global = 通用选项

example-top = 开始：
    { "  " }./maxim.ctl install                                   安装到本机
    { "  " }./maxim.ctl install -f cluster.yaml --bundle FILE     安装到拓扑中的各节点

flag-help = 显示帮助
flag-version = 显示版本
flag-file = 拓扑文件 cluster.yaml
flag-cluster = 从这里安装过的集群的名称
flag-bundle = 安装包
flag-trust-key = 安装包必须由此公钥（minisign）签名
flag-set = 按点分路径覆盖拓扑中的一个值，如 ports.xmpp=15222；可重复
flag-yes = 所有问题回答“是”（安装包密钥的问题除外）
flag-dry-run = 不做任何更改，只显示将要做什么
flag-output = 标准输出的格式
flag-root = 嵌入式部署所在目录 [默认：~/.local/share/maxim]
flag-concurrency = 同时处理的节点数
flag-force = 放行某项阻断检查，用其名称如 memory.total；可重复
flag-accept-state = 接受集群较新的状态，即使其中的地址、本机文件或证书颁发机构与本机不同
flag-strict = 有警告时以退出码 4 结束
flag-ask-sudo-password = 开始前询问所有节点的 sudo 密码
flag-timings = 按阶段和节点显示用时
flag-quiet = 只输出结果、警告和错误
flag-verbose = 输出更多；-vv 输出全部
flag-no-color = 不使用颜色（同环境变量 NO_COLOR）

command-install = 安装或更新：检查、计划、询问、执行、验证
example-install = 示例：
    { "  " }./maxim.ctl install --yes
    { "  " }./maxim.ctl install -f cluster.yaml --bundle maxim.bundle
    { "  " }./maxim.ctl install --nodelist 10.77.0.11 10.77.0.12 10.77.0.13 --set domain=im.acme.example
argument-install-nodelist = 由这些地址生成拓扑：最后两个是数据库和缓存
argument-install-profile = 本机的安装方式：embedded（无需 root 和 systemd）或 standard

command-check = 探测节点并判断结果；不做任何更改
example-check = 示例：
    { "  " }./maxim.ctl check -f cluster.yaml
argument-check-nodelist = 由这些地址生成拓扑
argument-check-profile = 本机的安装方式：embedded 或 standard

command-plan = 显示安装将做的更改；用 -o 保存为文件供 apply 使用
example-plan = 示例：
    { "  " }./maxim.ctl plan -f cluster.yaml --bundle maxim.bundle -o change.plan
argument-plan-nodelist = 由这些地址生成拓扑
argument-plan-profile = 本机的安装方式：embedded 或 standard
argument-plan-out = 将计划保存到此文件

command-apply = 严格执行文件中的计划
example-apply = 示例：
    { "  " }./maxim.ctl apply change.plan --bundle maxim.bundle
argument-apply-plan = 由 `plan -o` 生成的文件

command-status = 显示每个节点和组件的当前状态
example-status = 示例：
    { "  " }./maxim.ctl status --output json

command-start = 启动服务，存储在先
example-start = 示例：
    { "  " }./maxim.ctl start
argument-start-component = 仅此组件

command-stop = 停止服务，存储在后
example-stop = 示例：
    { "  " }./maxim.ctl stop console
argument-stop-component = 仅此组件

command-restart = 按顺序重启服务
example-restart = 示例：
    { "  " }./maxim.ctl restart im
argument-restart-component = 仅此组件

command-config = 查看和更改配置；查找漂移
example-config = 示例：
    { "  " }./maxim.ctl config get ports
    { "  " }./maxim.ctl config set settings.im.registration.in_band true
    { "  " }./maxim.ctl config diff
command-config-get = 显示当前生效的配置，含默认值
example-config-get = 示例：
    { "  " }./maxim.ctl config get settings
argument-config-get-key = 点分路径；省略则显示全部
command-config-set = 更改拓扑中的一个值，更改前检查整体
example-config-set = 示例：
    { "  " }./maxim.ctl config set ports.https 8443
argument-config-set-key = 点分路径
argument-config-set-value = 新值
command-config-diff = 显示期望与实际之间的漂移
example-config-diff = 示例：
    { "  " }./maxim.ctl config diff

command-user = 成员账号
example-user = 示例：
    { "  " }./maxim.ctl user add ann@im.acme.example --name "Ann Lee"
command-user-add = 新建账号；会询问密码
example-user-add = 示例：
    { "  " }./maxim.ctl user add ann@im.acme.example --name "Ann Lee"
    { "  " }./maxim.ctl user add bob --password-stdin < password-of-bob
argument-user-add-address = 地址，或 @ 之前的部分
argument-user-add-name = 显示的姓名
argument-user-add-password-stdin = 从标准输入读取密码
command-user-list = 列出所有账号
example-user-list = 示例：
    { "  " }./maxim.ctl user list
command-user-passwd = 设置新密码
example-user-passwd = 示例：
    { "  " }./maxim.ctl user passwd ann@im.acme.example
argument-user-passwd-address = 地址，或 @ 之前的部分
argument-user-passwd-password-stdin = 从标准输入读取密码
command-user-disable = 禁止账号登录；数据保留
example-user-disable = 示例：
    { "  " }./maxim.ctl user disable ann@im.acme.example
argument-user-disable-address = 地址，或 @ 之前的部分
command-user-enable = 允许账号再次登录
example-user-enable = 示例：
    { "  " }./maxim.ctl user enable ann@im.acme.example
argument-user-enable-address = 地址，或 @ 之前的部分
command-user-remove = 删除账号及其全部内容
example-user-remove = 示例：
    { "  " }./maxim.ctl user remove ann@im.acme.example
argument-user-remove-address = 地址，或 @ 之前的部分
command-user-import = 从 CSV 文件批量新建账号，列为 address,password,name,groups
example-user-import = 示例：
    { "  " }./maxim.ctl user import staff.csv
argument-user-import-list = 文件；第一行是列名

command-logs = 显示日志的最后若干行
example-logs = 示例：
    { "  " }./maxim.ctl logs im --host app1 -n 200
argument-logs-component = 仅此组件
argument-logs-host = 仅此节点
argument-logs-lines = 每个节点上每个组件的行数

command-doctor = 找出问题、证据和解决办法
example-doctor = 示例：
    { "  " }./maxim.ctl doctor

command-support-bundle = 把他人排查问题所需的资料收集到一个不含机密的文件中
example-support-bundle = 示例：
    { "  " }./maxim.ctl support-bundle
    { "  " }./maxim.ctl support-bundle -o acme.tar.zst -n 5000
argument-support-bundle-out = 要生成的文件；不会覆盖已有文件 [默认：当前目录下的 maxim-support-NAME-TIME.tar.zst]
argument-support-bundle-lines = 每个节点上每份日志的行数

command-unlock = 显示谁持有集群的锁；移除遗留的锁
example-unlock = 示例：
    { "  " }./maxim.ctl unlock
    { "  " }./maxim.ctl unlock --expired
argument-unlock-expired = 移除租约已过期的锁
argument-unlock-owner = 移除该持有者的锁

command-console = 控制台
example-console = 示例：
    { "  " }./maxim.ctl console passwd
command-console-passwd = 为控制台管理员设置新密码，结束其所有会话，解除所有锁定
example-console-passwd = 示例：
    { "  " }./maxim.ctl console passwd
    { "  " }./maxim.ctl console passwd --password-stdin < new-password
argument-console-passwd-password-stdin = 从标准输入读取密码；否则生成一个，写入只有您能读取的文件

command-ca = 集群的私有证书颁发机构
example-ca = 示例：
    { "  " }./maxim.ctl ca export -o ca.pem
command-ca-export = 导出其证书，供手机和浏览器信任
example-ca-export = 示例：
    { "  " }./maxim.ctl ca export -o ca.pem
    { "  " }./maxim.ctl ca export --format mobileconfig -o maxim.mobileconfig
argument-ca-export-out = 文件；省略则写到标准输出
argument-ca-export-format = 证书的格式

command-bundle = 离线安装所需的单个文件
example-bundle = 示例：
    { "  " }./maxim.ctl bundle build
command-bundle-build = 从当前检出构建安装包
example-bundle-build = 示例：
    { "  " }./maxim.ctl bundle build -o maxim.bundle
argument-bundle-build-out = 要写入的文件
argument-bundle-build-relock = 采用当前提供的软件包版本，并写入锁文件
argument-bundle-build-key = 用于签名的私钥（minisign）[默认：本机的开发者密钥]
command-bundle-verify = 读取整个安装包并检查每个字节
example-bundle-verify = 示例：
    { "  " }./maxim.ctl bundle verify maxim.bundle --trust-key maxim.bundle.pub
argument-bundle-verify-path = 安装包
command-bundle-inspect = 显示安装包的内容
example-bundle-inspect = 示例：
    { "  " }./maxim.ctl bundle inspect maxim.bundle
argument-bundle-inspect-path = 安装包

command-upgrade = 逐个节点升级到安装包的版本；失败时自动退回
example-upgrade = 示例：
    { "  " }./maxim.ctl upgrade --bundle maxim-next.bundle --dry-run
    { "  " }./maxim.ctl upgrade --bundle maxim-next.bundle
    { "  " }./maxim.ctl upgrade --finalize
argument-upgrade-finalize = 越过不可回退点：清除只有旧版本需要的内容
argument-upgrade-no-snapshot = 即使事先没有快照也继续

command-rollback = 回退到升级前的版本（升级尚未定稿时）
example-rollback = 示例：
    { "  " }./maxim.ctl rollback --dry-run

command-host = 集群的节点
example-host = 示例：
    { "  " }./maxim.ctl host replace db1 10.77.0.22
command-host-replace = 用新节点替换已失效的节点，接管其角色，并从备份恢复其数据
example-host-replace = 示例：
    { "  " }./maxim.ctl host replace db1 10.77.0.22 --bundle maxim.bundle --dry-run
    { "  " }./maxim.ctl host replace app1 10.77.0.23 --name app9 --bundle maxim.bundle
argument-host-replace-host = 已失效的节点
argument-host-replace-address = 替换节点的地址
argument-host-replace-name = 替换节点的名称（与原名称不同时）
argument-host-replace-from = 数据取自哪个备份集 [默认：最新的]
argument-host-replace-without-data = 放弃失效节点上的数据，继续执行
argument-host-replace-alive = 节点可能仍在运行：尽可能停止其服务

command-uninstall = 移除除数据以外的一切；加 --purge 则连同数据
example-uninstall = 示例：
    { "  " }./maxim.ctl uninstall --dry-run
argument-uninstall-purge = 同时移除数据、用户和集群的密钥

command-completion = 输出 shell 的补全脚本
example-completion = 示例：
    { "  " }./maxim.ctl completion bash > /etc/bash_completion.d/maxim.ctl
argument-completion-shell = shell

## 备份

command-backup = 创建、校验和恢复备份
example-backup = 示例：
    { "  " }./maxim.ctl backup create
command-backup-create = 在集群运行时创建一个完整的备份集
example-backup-create = 示例：
    { "  " }./maxim.ctl backup create
argument-backup-create-scheduled = 计为定时运行，并在之后执行保留策略
command-backup-list = 显示仓库中的备份集
example-backup-list = 示例：
    { "  " }./maxim.ctl backup list --output json
command-backup-verify = 检查仓库，并重新读取一部分数据
example-backup-verify = 示例：
    { "  " }./maxim.ctl backup verify --share 100
    { "  " }./maxim.ctl backup verify --deep
argument-backup-verify-share = 重新读取的数据百分比
argument-backup-verify-wanted = 与清单比对的备份集；默认最新
argument-backup-verify-deep = 完整读取该备份集的每个部分并比对
command-backup-restore = 恢复备份集，或凭恢复套件重建集群
example-backup-restore = 示例：
    { "  " }./maxim.ctl backup restore --overwrite
    { "  " }./maxim.ctl backup restore --kit recovery-kit.json --password-file password
argument-backup-restore-wanted = 备份集；默认最新
argument-backup-restore-only = 只恢复这一部分
argument-backup-restore-overwrite = 允许替换现有数据；会先创建安全备份集
argument-backup-restore-without-safety-set = 与 --overwrite 一起使用：现有数据已无法读取，不创建安全备份集，只把它移到一旁
argument-backup-restore-kit = 恢复套件文件，用于在状态丢失后重建集群
argument-backup-restore-password-file = 权限 0600 的文件，内含套件打印页上的密码
argument-backup-restore-password-stdin = 从标准输入读取该密码
command-backup-drill = 把最新备份集恢复到临时位置，启动、读取一条消息，然后清理
example-backup-drill = 示例：
    { "  " }./maxim.ctl backup drill
argument-backup-drill-wanted = 备份集；默认最新
command-backup-schedule = 显示备份计划
example-backup-schedule = 示例：
    { "  " }./maxim.ctl backup schedule
    { "  " }./maxim.ctl config set backup.schedule "0 3 * * *"
argument-backup-schedule-run = 执行计划：嵌入式部署的服务所运行的命令
argument-backup-schedule-once = 执行现在应做的任务后结束：定时器所启动的命令
command-backup-prune = 删除保留策略之外的备份集；--dry-run 只显示
example-backup-prune = 示例：
    { "  " }./maxim.ctl backup prune --dry-run
command-backup-key = 仓库的密钥
example-backup-key = 示例：
    { "  " }./maxim.ctl backup key export
command-backup-key-export = 显示任何 restic 所需的信息，以及恢复套件的位置
example-backup-key-export = 示例：
    { "  " }./maxim.ctl backup key export --output json
